//! The package in a booted Debian: installed, set up, served, reloaded, upgraded, crashed, starved and purged by what a user types.
//! `make system` runs it.

#[path = "../it/m_service/crowd.rs"]
mod crowd;
mod machine;
#[allow(dead_code, unused_imports)]
#[path = "../it/support/mod.rs"]
mod support;

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crowd::Crowd;
use machine::Machine;
use support::{eventually, seed, Connection};

/// The service on its machine.
struct Service {
    machine: Machine,
    port: u16,
    start: Instant,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("below target").to_path_buf()
}

/// The newest package that was built in a directory.
fn package(dir: &str, kind: &str) -> PathBuf {
    let all = std::fs::read_dir(target().join(dir)).expect("make deb rpm has built some").flatten();
    let packages = all.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == kind));
    packages
        .max_by_key(|path| path.metadata().unwrap().modified().unwrap())
        .expect("make deb rpm has built one")
}

/// The same, as the next version.
fn next_package(package: &Path, dir: &Path) -> PathBuf {
    let (unpacked, next) = (dir.join("unpacked"), dir.join("next.deb"));
    let _ = std::fs::remove_dir_all(&unpacked);
    let run = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
    run(Command::new("dpkg-deb").arg("-R").arg(package).arg(&unpacked));
    let control = unpacked.join("DEBIAN/control");
    let text = std::fs::read_to_string(&control).unwrap();
    let version = text.lines().find(|line| line.starts_with("Version:")).unwrap();
    std::fs::write(&control, text.replace(version, &format!("{version}.1"))).unwrap();
    run(Command::new("dpkg-deb")
        .args(["-b", "--root-owner-group"])
        .arg(&unpacked)
        .arg(&next)
        .stdout(std::process::Stdio::null()));
    next
}

impl Service {
    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn get(&self, path: &str) -> support::Reply {
        Connection::open(&self.address()).get(path)
    }

    fn tell(&self, step: &str) {
        println!("{:6.1} s  {step}", self.start.elapsed().as_secs_f64());
    }

    /// What is cached is answered from the cache.
    fn is_warm(&self, why: &str) {
        eventually(why, || self.get("/products/7").header("cache-status") == Some("catwalk; hit"));
    }

    /// Nobody of a crowd fails while `work` is done.
    fn under_load(&self, what: &str, work: impl FnOnce(&Crowd)) {
        let crowd = Crowd::during(self.address(), seed(), |crowd| {
            std::thread::sleep(Duration::from_millis(300));
            work(crowd);
            std::thread::sleep(Duration::from_millis(300));
        });
        let (served, excused) = (crowd.served.load(Ordering::Relaxed), crowd.excused.load(Ordering::Relaxed));
        crowd.assert_unharmed();
        self.tell(&format!(
            "{what}: {served} requests served meanwhile, 0 failed, {excused} with what was killed"
        ));
    }
}

/// A machine with the packages in it. None: none can be had here, which is told.
fn boot(suite: &str) -> Option<Service> {
    if let Some(why) = machine::obstacle() {
        println!("passed over: {why}");
        return None;
    }
    let dir = target().join("system");
    let start = Instant::now();
    let service = Service { machine: Machine::boot(&dir, suite), port: free_port(), start };
    let systemd = service.machine.sh("systemctl --version | head -n 1");
    service.tell(&format!("a Debian {suite} has booted, {systemd}"));
    let deb = package("packages", "deb");
    for (file, name) in [
        (deb.clone(), "catwalk.deb"),
        (next_package(&deb, &dir), "next.deb"),
        (package("packages", "rpm"), "catwalk.rpm"),
        (package("packages/next", "rpm"), "next.rpm"),
    ] {
        std::fs::copy(file, service.machine.path("/root").join(name)).unwrap();
    }
    Some(service)
}

#[test]
fn the_package_in_a_booted_debian() {
    let Some(service) = boot("bookworm") else { return };
    let said = service.machine.sh("apt-get install -y -q --no-install-recommends /root/catwalk.deb");
    assert!(said.contains("catwalk setup"), "{said}");
    set_up(&service);
    reload(&service);
    outlive_a_restart(&service);
    survive_crashes(&service);
    // Where the database is only the unit knows.
    let url = service.machine.sh("sed -n 's/^url = //p' /etc/catwalk/catwalk.toml");
    service.machine.sh("sed -i 's/^url = /#url = /' /etc/catwalk/catwalk.toml");
    let drop_in = format!("[Service]\nEnvironment=CATWALK_DATABASE_URL={}\n", url.trim_matches('"'));
    service.machine.write("/etc/systemd/system/catwalk.service.d/database.conf", &drop_in);
    service.machine.sh("systemctl daemon-reload && systemctl restart catwalk");
    service.is_warm("it is cached");
    upgrade(&service, "apt-get install -y -q --no-install-recommends /root/next.deb");
    upgrade_unasked(&service);
    lose_the_database(&service);
    run_out_of_descriptors(&service);
    seal(&service);
    refuse_a_bad_configuration(&service);
    come_back(&service);
    purge(&service);
}

/// What a systemd from 254 on can do beyond.
#[test]
fn a_newer_systemd_reloads_by_signal_and_keeps_the_cache_over_a_stop() {
    let Some(service) = boot("trixie") else { return };
    let machine = &service.machine;
    machine.sh("apt-get install -y -q --no-install-recommends /root/catwalk.deb");
    set_up(&service);
    machine.sh("mkdir -p /etc/systemd/system/catwalk.service.d && cp /usr/share/catwalk/systemd/254.conf /etc/systemd/system/catwalk.service.d/");
    machine.sh("systemctl daemon-reload && systemctl restart catwalk");
    assert_eq!(machine.show("Type"), "notify-reload");
    (1..=300).for_each(|id| assert_eq!(service.get(&format!("/products/{id}")).status, 200));
    service.is_warm("it is cached");
    service.under_load("10 × systemctl reload, by signal", |_| {
        for _ in 0..10 {
            machine.sh("systemctl reload catwalk");
        }
    });
    assert_eq!(
        machine.journal().matches("reload: done").count(),
        10,
        "each was waited for: {}",
        machine.journal()
    );
    machine.sh("systemctl stop catwalk && systemctl start catwalk");
    let reply = service.get("/products/9");
    assert_eq!(reply.header("cache-status"), Some("catwalk; hit"), "{}", machine.journal());
    service.tell("the first request after a stop and a start was a hit");
    upgrade(&service, "apt-get install -y -q --no-install-recommends /root/next.deb");
    machine.sh("systemctl reload catwalk && systemctl stop catwalk && systemctl start catwalk");
    assert_eq!(service.get("/products/9").header("cache-status"), Some("catwalk; hit"));
    service.tell("the same with the next version");
}

/// Debian's rpm knows nothing of what dpkg has installed, so what a package needs is not looked at; its scripts are.
#[test]
fn the_rpm_in_a_booted_machine() {
    let Some(service) = boot("bookworm") else { return };
    let machine = &service.machine;
    let said = machine.sh("rpm --install --nodeps /root/catwalk.rpm");
    assert!(said.contains("catwalk setup"), "{said}");
    set_up(&service);
    service.under_load("10 × systemctl reload", |_| {
        (0..10).for_each(|_| drop(machine.sh("systemctl reload catwalk")));
    });
    upgrade(&service, "rpm --upgrade --nodeps /root/next.rpm");
    assert!(machine.sh("cat /etc/catwalk/catwalk.toml").contains(&service.address()), "settings are kept");
    machine.sh("rpm --erase catwalk");
    assert!(!machine.try_sh("systemctl is-active catwalk").0);
    assert!(machine.try_sh("pgrep catwalk").1.is_empty());
    let left = machine.sh("ls -d /usr/bin/catwalk /usr/lib/catwalk /usr/share/catwalk /usr/share/doc/catwalk /usr/lib/systemd/system/catwalk* /run/catwalk /etc/systemd/system/*/catwalk* 2>/dev/null || true");
    assert!(left.is_empty(), "{left}");
    assert!(
        machine.path("/etc/catwalk/catwalk.toml.rpmsave").exists(),
        "settings that were changed are kept"
    );
    service.tell("rpm --erase: what is left are settings, logs, user and database");
}

fn set_up(service: &Service) {
    let machine = &service.machine;
    let listen = format!("s/^listen = .*/listen = \"{}\"/", service.address());
    let more = format!("admin.listen = \"127.0.0.1:{}\"\\nhttp.write_rate = 0", free_port());
    machine.sh(&format!("sed -i -e '{listen}' -e '1i {more}' /etc/catwalk/catwalk.toml"));
    machine.sh("sed -i 's/^#size = .*/size = \"256MiB\"/' /etc/catwalk/catwalk.toml");
    let said = machine.sh("catwalk setup");
    assert!(said.contains("it has no password") && said.contains("memory to fit beside catwalk"), "{said}");
    assert!(!machine.try_sh("grep -rE '://[^/ ]*:[^/ ]*@' /etc/catwalk").0, "no address has a password");
    service.tell("installed, catwalk setup");
    machine.sh("systemctl enable --now catwalk");
    machine.sh("setpriv --reuid catwalk --regid catwalk --init-groups catwalk seed --products 300");
    let status = machine.sh("systemctl status catwalk --no-pager");
    assert!(status.contains("workers on") && status.contains("active (running)"), "{status}");
    eventually("it is ready", || service.get("/readyz").status == 200);
    (1..=300).for_each(|id| assert_eq!(service.get(&format!("/products/{id}")).status, 200));
    service.is_warm("it is cached");
    assert!(machine.sh("catwalk setup").contains("ok"), "it can be run again");
    assert!(machine
        .sh("man -w catwalk 2>/dev/null || ls /usr/share/man/man8/catwalk.8*")
        .contains("catwalk.8"));
    let doctor = machine.try_sh("setpriv --reuid catwalk --regid catwalk --init-groups catwalk doctor").1;
    assert!(doctor.contains(" 0 broken"), "{doctor}");
    service.tell(&format!("systemctl start; catwalk doctor: {}", doctor.lines().last().unwrap_or_default()));
}

fn reload(service: &Service) {
    let machine = &service.machine;
    service.under_load("10 × systemctl reload", |_| {
        for _ in 0..10 {
            machine.sh("systemctl reload catwalk");
        }
    });
    machine.sh("cp /etc/catwalk/catwalk.toml /root/good && echo 'nonsense = 1' > /etc/catwalk/catwalk.toml");
    let (done, _) = machine.try_sh("systemctl reload catwalk");
    assert!(!done && machine.journal().contains("nothing has changed"), "{}", machine.journal());
    machine.sh("cp /root/good /etc/catwalk/catwalk.toml && systemctl reload catwalk");
    assert_eq!(machine.show("NRestarts"), "0");
    service.tell("a bad configuration was refused, with its reason in the journal");
}

fn outlive_a_restart(service: &Service) {
    let machine = &service.machine;
    let text = format!("[Socket]\nListenStream=\nListenStream={}\n", service.address());
    machine.write("/etc/systemd/system/catwalk.socket.d/port.conf", &text);
    machine.sh("systemctl stop catwalk && systemctl daemon-reload && systemctl enable --now catwalk.socket && systemctl start catwalk");
    (1..=300).for_each(|id| assert_eq!(service.get(&format!("/products/{id}")).status, 200));
    service.is_warm("it is cached");
    service.under_load("10 × systemctl restart with the socket unit", |_| {
        for _ in 0..10 {
            machine.sh("systemctl reset-failed catwalk; systemctl restart catwalk");
        }
    });
    machine.sh("systemctl restart catwalk");
    let reply = service.get("/products/9");
    assert_eq!(reply.header("cache-status"), Some("catwalk; hit"), "{}", machine.journal());
    service.tell("the first request after a restart was a hit: the cache was in the descriptor store");
}

fn survive_crashes(service: &Service) {
    let machine = &service.machine;
    let restarts: u32 = machine.show("NRestarts").parse().unwrap();
    service.under_load("kill -9 of the master", |crowd| {
        // With the master systemd ends all others.
        crowd.kill(|| {
            machine.sh("kill -9 $(systemctl show catwalk.service --value -p MainPID)");
            eventually("it is started again", || machine.show("NRestarts") != restarts.to_string());
        });
        eventually("it serves", || machine.show("ActiveState") == "active");
    });
    service.is_warm("the cache outlived the crash");
    let worker = machine.sh("pgrep -o catwalk-work");
    machine.sh(&format!("kill -STOP {worker}"));
    eventually("a worker that hangs is replaced", || !machine.try_sh(&format!("kill -0 {worker}")).0);
    assert_eq!(machine.show("NRestarts"), (restarts + 1).to_string(), "and nothing else is");
    service.tell("a hanging worker was replaced by the master");
    let main = machine.show("MainPID");
    machine.sh(&format!("kill -STOP {main}"));
    eventually("the watchdog ends a master that hangs", || {
        machine.show("MainPID") != main && machine.show("ActiveState") == "active"
    });
    assert!(machine.journal().contains("Watchdog timeout"), "{}", machine.journal());
    service.is_warm("the cache outlived that too");
    service.tell("a hanging master was replaced by systemd's watchdog");
}

fn upgrade(service: &Service, command: &str) {
    let machine = &service.machine;
    let (main, restarts) = (machine.show("MainPID"), machine.show("NRestarts"));
    let mut said = String::new();
    service.under_load("the next version", |_| said = machine.sh(command));
    assert!(said.contains("the new version has taken over; no connection was lost"), "{said}");
    assert_ne!(machine.show("MainPID"), main);
    assert_eq!(machine.show("NRestarts"), restarts);
    assert_eq!(service.get("/products/9").header("cache-status"), Some("catwalk; hit"));
    eventually("those before are gone", || machine.sh("pgrep -c catwalk-work") == "2");
}

/// A server that can't be asked is restarted, and nobody is refused with the socket unit.
fn upgrade_unasked(service: &Service) {
    let machine = &service.machine;
    let main = machine.show("MainPID");
    machine.sh("rm /run/catwalk/control");
    let mut said = String::new();
    service.under_load("an upgrade of a server that can't be asked", |_| {
        said = machine.sh("dpkg -i /root/next.deb")
    });
    assert!(said.contains("so the service is restarted"), "{said}");
    assert_ne!(machine.show("MainPID"), main);
    service.is_warm("from the same cache");
}

fn lose_the_database(service: &Service) {
    let machine = &service.machine;
    machine.sh("systemctl stop postgresql");
    machine.sh("systemctl restart catwalk");
    assert_eq!(machine.show("ActiveState"), "active");
    let ready = service.get("/readyz");
    assert_eq!(ready.status, 503, "{}", ready.text());
    let restarts = machine.show("NRestarts");
    eventually("what is cached is served while no database is there", || {
        service.get("/products/9").status == 200
    });
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((machine.show("ActiveState").as_str(), machine.show("NRestarts")), ("active", restarts));
    machine.sh("systemctl start postgresql");
    eventually("it is ready again", || service.get("/readyz").status == 200);
    service.tell("started without its database: READY, /readyz 503, served from the cache; ready again when it came back");
}

fn run_out_of_descriptors(service: &Service) {
    let machine = &service.machine;
    machine.write("/etc/systemd/system/catwalk.service.d/few.conf", "[Service]\nLimitNOFILE=400\n");
    machine.sh("systemctl daemon-reload && systemctl restart catwalk");
    let crowd: Vec<_> = (0..1200).filter_map(|_| TcpStream::connect(service.address()).ok()).collect();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(machine.show("ActiveState"), "active");
    drop(crowd);
    eventually("whoever comes later is served", || service.get("/products/9").status == 200);
    machine.sh("rm /etc/systemd/system/catwalk.service.d/few.conf && systemctl daemon-reload && systemctl restart catwalk");
    service.tell("1,200 connections to 2 × 400 descriptors: nobody died, and others were served afterwards");
}

fn seal(service: &Service) {
    let machine = &service.machine;
    let admin = free_port();
    let text = format!("[Socket]\nListenStream=\nListenStream=127.0.0.1:{admin}\n");
    machine.write("/etc/systemd/system/catwalk-admin.socket.d/port.conf", &text);
    machine.sh("mkdir -p /etc/systemd/system/catwalk.service.d && cp /usr/share/catwalk/systemd/sealed.conf /etc/systemd/system/catwalk.service.d/");
    machine.sh("systemctl daemon-reload && systemctl stop catwalk && systemctl enable --now catwalk-admin.socket && systemctl restart catwalk");
    eventually("it is ready", || service.get("/readyz").status == 200);
    assert_eq!(service.get("/products/9").status, 200);
    let metrics = Connection::open(&format!("127.0.0.1:{admin}")).get("/metrics");
    assert!(metrics.text().contains("catwalk_http_requests_total"));
    machine.sh("systemctl reload catwalk && catwalk upgrade --wait");
    assert_eq!(service.get("/products/9").status, 200);
    let exposure = machine.sh("systemd-analyze security catwalk.service --no-pager | tail -n 1");
    service.tell(&format!(
        "sealed: no network of its own, PostgreSQL over its socket.{}",
        exposure.trim_start_matches('→')
    ));
    machine.sh("rm /etc/systemd/system/catwalk.service.d/sealed.conf && systemctl disable --now catwalk-admin.socket && systemctl daemon-reload && systemctl restart catwalk");
}

fn refuse_a_bad_configuration(service: &Service) {
    let machine = &service.machine;
    machine.sh("echo 'nonsense = 1' > /etc/catwalk/catwalk.toml");
    let restarts = machine.show("NRestarts");
    assert!(!machine.try_sh("systemctl stop catwalk.socket catwalk; systemctl start catwalk").0);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(
        (machine.show("ActiveState").as_str(), machine.show("ExecMainStatus").as_str()),
        ("failed", "78")
    );
    assert_eq!(machine.show("NRestarts"), restarts, "nobody tries again");
    machine.sh("cp /root/good /etc/catwalk/catwalk.toml && systemctl reset-failed catwalk && systemctl start catwalk.socket catwalk");
    service.tell("a bad configuration: exit status 78, no restart");
}

/// Removed and installed again it is as it was.
fn come_back(service: &Service) {
    let machine = &service.machine;
    machine.sh("systemctl disable catwalk.socket && apt-get remove -y -q catwalk");
    assert!(!machine.try_sh("systemctl start catwalk").0);
    machine.sh("apt-get install -y -q --no-install-recommends /root/next.deb");
    assert_eq!(machine.try_sh("systemctl is-enabled catwalk").1, "enabled", "as before");
    assert_eq!(machine.try_sh("systemctl is-enabled catwalk.socket").1, "disabled", "as before");
    machine.sh("systemctl start catwalk");
    eventually("it is ready", || service.get("/readyz").status == 200);
    service.tell("removed and installed again: enabled as before");
}

fn purge(service: &Service) {
    let machine = &service.machine;
    machine.sh("apt-get remove -y -q catwalk");
    assert!(!machine.try_sh("systemctl is-active catwalk catwalk.socket").0);
    assert!(machine.try_sh("pgrep catwalk").1.is_empty());
    assert!(machine.path("/etc/catwalk/catwalk.toml").exists(), "settings stay until a purge");
    machine.sh("apt-get purge -y -q catwalk");
    let left = machine.sh("find / -xdev \\( -path /proc -o -path /sys -o -path /root -o -path /var/lib/dpkg -o -path /var/cache -o -path /var/log/journal -o -path /var/lib/postgresql -o -path /run \\) -prune -o -iname '*catwalk*' -print; ls -d /run/catwalk 2>/dev/null || true");
    let expected = |line: &&str| line.starts_with("/var/log/") || line.starts_with("/var/lib/systemd");
    let unexpected: Vec<&str> = left.lines().filter(|line| !expected(line)).collect();
    assert!(unexpected.is_empty(), "{left}");
    assert!(machine.sh("getent passwd catwalk").contains("catwalk"), "its number may be on files elsewhere");
    service.tell("removed and purged; what is left: the user and the database");
}
