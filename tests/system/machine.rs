//! A Debian with a systemd of its own, booted in a container (systemd-nspawn): made once, copied for each run, thrown away.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::support::eventually;

/// What is in it from the beginning.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2,curl,ca-certificates,postgresql,procps,rpm";

pub struct Machine {
    root: PathBuf,
    container: Child,
    leader: String,
}

/// Why no machine can be booted here, if it can't.
pub fn obstacle() -> Option<String> {
    let has = |program: &str| {
        Command::new("which").arg(program).stdout(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    if !nix::unistd::geteuid().is_root() {
        return Some("booting a container takes root".into());
    }
    if has("debootstrap") && has("systemd-nspawn") {
        return None;
    }
    let mut install = Command::new("apt-get");
    install.args(["install", "-y", "-q", "--no-install-recommends", "systemd-container", "debootstrap"]);
    let _ = install.stdout(Stdio::null()).stderr(Stdio::null()).status();
    (!has("debootstrap") || !has("systemd-nspawn"))
        .then(|| "systemd-container and debootstrap can't be had".into())
}

fn run(command: &mut Command) {
    let out = command.stdin(Stdio::null()).output().expect("it can be run");
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// The system that all machines of a suite are copies of.
fn template(dir: &Path, suite: &str) -> PathBuf {
    let (template, unfinished) = (dir.join(suite), dir.join(format!("{suite}.new")));
    if template.exists() {
        return template;
    }
    println!("making a Debian {suite} in {} …", template.display());
    let _ = fs::remove_dir_all(&unfinished);
    fs::create_dir_all(dir).unwrap();
    run(Command::new("debootstrap")
        .args(["--variant=minbase", &format!("--include={PACKAGES}"), suite])
        .arg(&unfinished));
    for file in ["etc/apt/apt.conf.d", "etc/resolv.conf"] {
        let _ = Command::new("cp").args(["-rLT", &format!("/{file}")]).arg(unfinished.join(file)).output();
    }
    // It shares this machine's network: PostgreSQL stays on its socket.
    let version =
        fs::read_dir(unfinished.join("etc/postgresql")).unwrap().flatten().next().expect("it has PostgreSQL");
    let settings = version.path().join("main/conf.d");
    fs::create_dir_all(&settings).unwrap();
    fs::write(settings.join("socket.conf"), "listen_addresses = ''\n").unwrap();
    fs::rename(&unfinished, &template).unwrap();
    template
}

impl Machine {
    /// A fresh one of a Debian's suite, below `dir`, that has booted.
    pub fn boot(dir: &Path, suite: &str) -> Machine {
        let template = template(dir, suite);
        let root = dir.join("machine");
        let _ = fs::remove_dir_all(&root);
        run(Command::new("cp").arg("-a").arg(&template).arg(&root));
        let log = fs::File::create(dir.join("console")).unwrap();
        let mut command = Command::new("systemd-nspawn");
        command.arg("-q").arg("-D").arg(&root).args([
            "--register=no",
            "--keep-unit",
            "--private-users=no",
            "-b",
        ]);
        let container =
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut machine = Machine { root, container, leader: String::new() };
        eventually("the machine has booted", || {
            let children = format!("/proc/{0}/task/{0}/children", machine.container.id());
            let text = fs::read_to_string(children).unwrap_or_default();
            machine.leader = text.split_whitespace().next().unwrap_or_default().to_string();
            let state = || machine.run(&["systemctl", "is-system-running"]).stdout;
            !machine.leader.is_empty() && matches!(state().trim_ascii(), b"running" | b"degraded")
        });
        machine
    }

    /// A path of the machine as it is seen from here.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Runs a command inside.
    pub fn run(&self, command: &[&str]) -> Output {
        let mut enter = Command::new("nsenter");
        enter.args(["-t", &self.leader, "-m", "-u", "-i", "-p", "-C", "--"]).args(command);
        enter.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).output().expect("nsenter runs")
    }

    /// Runs a line of shell inside; it has to succeed. Returns what it printed.
    pub fn sh(&self, line: &str) -> String {
        let (status, text) = self.try_sh(line);
        assert!(status, "{line}\n{text}\n{}", self.journal());
        text
    }

    /// The same, whether it succeeds or not.
    pub fn try_sh(&self, line: &str) -> (bool, String) {
        let out = self.run(&["sh", "-c", &format!("{{ {line}\n}} 2>&1")]);
        (out.status.success(), String::from_utf8_lossy(&out.stdout).trim_end().to_string())
    }

    /// A property of the service.
    pub fn show(&self, property: &str) -> String {
        self.sh(&format!("systemctl show catwalk.service --value -p {property}"))
    }

    pub fn journal(&self) -> String {
        self.try_sh("journalctl -u catwalk --no-pager -n 60").1
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.run(&["systemctl", "poweroff"]);
        let _ = self.container.wait();
        let _ = fs::remove_dir_all(&self.root);
    }
}
