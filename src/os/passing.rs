//! Descriptors passed to other processes, over Unix sockets that keep messages apart (SCM_RIGHTS, unix(7)), and those that this process was born with.
//! Runs in: both.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::socket::{
    bind, connect, recvmsg, sendmsg, setsockopt, socket, socketpair, sockopt, AddressFamily, ControlMessage,
    ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
};
use nix::sys::stat::{fchmodat, FchmodatFlags, Mode};

/// Longest message.
const MESSAGE_SIZE_MAX_BYTES: usize = 1024;

/// A message that came in.
pub struct Message {
    pub text: String,
    pub fds: Vec<OwnedFd>,
    /// User that sent it; None where that was not asked for.
    pub uid: Option<u32>,
}

fn datagram_socket() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::Datagram, flags, None)
}

/// A socket at `path` that this user can send messages to; senders are named by user.
///
/// # Errors
/// What bind(2) says.
pub fn listen(path: &Path) -> nix::Result<OwnedFd> {
    let fd = datagram_socket()?;
    setsockopt(&fd, sockopt::PassCred, &true)?;
    bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    // Nobody has connected yet, and nobody else may.
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    fchmodat(AT_FDCWD, path, mode, FchmodatFlags::FollowSymlink)?;
    Ok(fd)
}

/// A socket whose messages go to `path`; a path that begins with @ is an abstract one.
///
/// # Errors
/// What connect(2) says: ECONNREFUSED where nobody listens any more.
pub fn open(path: &Path) -> nix::Result<OwnedFd> {
    let fd = datagram_socket()?;
    let bytes = path.as_os_str().as_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => UnixAddr::new_abstract(name)?,
        None => UnixAddr::new(path)?,
    };
    connect(fd.as_raw_fd(), &address)?;
    Ok(fd)
}

/// Two sockets connected to each other. Each hears the end of the other: an empty message, and no other.
///
/// # Errors
/// What socketpair(2) says.
pub fn pair() -> nix::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
}

/// Sends a message with descriptors, without waiting.
///
/// # Errors
/// What sendmsg(2) says.
pub fn send(to: BorrowedFd<'_>, text: &str, fds: &[BorrowedFd<'_>]) -> nix::Result<()> {
    let raw: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(to.as_raw_fd(), &[IoSlice::new(text.as_bytes())], control, flags, None).map(drop)
}

/// The next message, if one has come in.
///
/// # Errors
/// What recvmsg(2) says; EAGAIN where there is none.
pub fn receive(from: BorrowedFd<'_>) -> nix::Result<Message> {
    let mut bytes = [0; MESSAGE_SIZE_MAX_BYTES];
    // As many as can be sent (SCM_MAX_FD): descriptors for which there is no room are made all the same, and nobody closes them.
    let mut space = nix::cmsg_space!([i32; 253], nix::sys::socket::UnixCredentials);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let (mut fds, mut uid) = (Vec::new(), None);
    let len = {
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let message = recvmsg::<()>(from.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
        for control in message.cmsgs()? {
            match control {
                ControlMessageOwned::ScmRights(raw) => {
                    // SAFETY: the kernel has just made these descriptors for us; nobody else has them.
                    fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                }
                ControlMessageOwned::ScmCredentials(credentials) => uid = Some(credentials.uid()),
                _ => {}
            }
        }
        message.bytes
    };
    let text = String::from_utf8(bytes[..len].to_vec()).map_err(|_| Errno::EBADMSG)?;
    Ok(Message { text, fds, uid })
}

/// Hands a descriptor to the service manager's store under `name`: the next process of this service is born with it
/// (sd_pid_notify_with_fds(3), FDSTORE=1). It is not watched: memory is always ready (FDPOLL=0).
///
/// # Errors
/// What sendmsg(2) says. Ok(false): there is no service manager.
pub fn store(name: &str, fd: BorrowedFd<'_>) -> nix::Result<bool> {
    tell_manager(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), &[fd])
}

/// Takes the descriptors of `name` out of the service manager's store.
///
/// # Errors
/// As `store`.
pub fn unstore(name: &str) -> nix::Result<bool> {
    tell_manager(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[])
}

fn tell_manager(text: &str, fds: &[BorrowedFd<'_>]) -> nix::Result<bool> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(false) };
    let manager = open(Path::new(&path))?;
    send(std::os::fd::AsFd::as_fd(&manager), text, fds).map(|()| true)
}

/// Whether this process is a service of a manager that may keep descriptors. From systemd 254 on it says how many ($FDSTORE); before, nobody can
/// tell.
pub fn may_store() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
        && std::env::var_os("FDSTORE").is_none_or(|count| count != "0")
}

/// The descriptors that this process was born with, by name (sd_listen_fds_with_names(3)). Once: they are the caller's then.
pub fn inherited() -> Vec<(String, OwnedFd)> {
    let Ok(found) = sd_notify::listen_fds_with_names() else { return Vec::new() };
    // SAFETY: the service manager made them for this process, and nobody has asked for them before.
    found.map(|(fd, name)| (name, unsafe { OwnedFd::from_raw_fd(fd) })).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_descriptor_arrives_with_its_message() {
        let (ours, theirs) = pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"inside").unwrap();
        file.rewind().unwrap();
        send(ours.as_fd(), "here it is", &[file.as_fd()]).unwrap();
        let Message { text, mut fds, uid } = receive(theirs.as_fd()).unwrap();
        assert_eq!((text.as_str(), fds.len(), uid), ("here it is", 1, None));
        let mut read = String::new();
        std::fs::File::from(fds.remove(0)).read_to_string(&mut read).unwrap();
        assert_eq!(read, "inside");
        assert_eq!(receive(theirs.as_fd()).err(), Some(Errno::EAGAIN));
    }

    #[test]
    fn as_many_descriptors_as_can_be_sent_are_received_and_closed() {
        let (ours, theirs) = pair().unwrap();
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        send(ours.as_fd(), "many", &[ours.as_fd(); 253]).unwrap();
        let before = open();
        let message = receive(theirs.as_fd()).unwrap();
        assert_eq!(message.fds.len(), 253);
        drop(message);
        // Other tests of this process open a few meanwhile.
        assert!(open() < before + 100);
    }

    #[test]
    fn a_sender_is_named_by_user() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = listen(&path).unwrap();
        send(open(&path).unwrap().as_fd(), "it is me", &[]).unwrap();
        let message = receive(listener.as_fd()).unwrap();
        assert_eq!(message.uid, Some(nix::unistd::geteuid().as_raw()));
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o777, 0o600, "nobody else can send");
        drop(listener);
        assert_eq!(open(&path).err(), Some(Errno::ECONNREFUSED));
    }
}
