//! What every protocol that writes has to pass. A new one implements [`Target`] in `places`.

mod faults;
mod killed;
mod over;
mod places;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use keelboat_engine::{Content, Digest, Kind};
use keelboat_staging::{
    Condition, DeliverError, Delivered, Delivery, Forgetful, Limit, OpenRequest, Opened, Over,
    Protocol, QueueLimits, Stager, StagingConfig, TransferError, Turn, Writing, digest_path,
};
use tempfile::TempDir;

use crate::common::faulty::{Faulty, PutFault};
use crate::common::{config, noise, room};

/// Where files can be written.
trait Target: Send + Sync {
    fn protocol(&self) -> Arc<dyn Protocol>;
    fn address(&self, name: &str) -> String;
    /// Where a file of this name is on this machine, if it is one.
    fn path(&self, _name: &str) -> Option<PathBuf> {
        None
    }
    /// An address that may not be written.
    fn refused(&self) -> String;
    /// Whether a file can have this name there.
    fn can_name(&self, _name: &str) -> bool {
        true
    }
    /// The variables with which another process gets there.
    fn environment(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// Whether it is not the stager's own way of writing local files, which no protocol is asked for.
fn is_asked(target: &dyn Target) -> bool {
    target.protocol().schemes() != ["file"]
}

/// What others see under this name.
async fn look(target: &dyn Target, name: &str) -> Option<Vec<u8>> {
    if let Some(path) = target.path(name) {
        return std::fs::read(path).ok();
    }
    let request = OpenRequest {
        address: target.address(name).into(),
        offset: 0,
        end: None,
        condition: Condition::Always,
        turn: Turn::default(),
    };
    let mut stream = match target.protocol().open(&request).await {
        Err(TransferError::Missing { .. }) => return None,
        Ok(Opened::Body { stream, .. }) => stream,
        other => panic!("{other:?}"),
    };
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await.expect("a piece") {
        bytes.extend_from_slice(&piece);
    }
    Some(bytes)
}

/// One who delivers, with the faults that it meets.
struct Sender {
    dir: TempDir,
    faulty: Arc<Faulty>,
    stager: Stager,
}

impl Sender {
    fn new(target: &dyn Target, faults: Vec<PutFault>) -> Self {
        Self::within(target, faults, QueueLimits::default())
    }

    fn within(target: &dyn Target, faults: Vec<PutFault>, limits: QueueLimits) -> Self {
        let dir = room();
        let faulty = Arc::new(Faulty::new(target.protocol(), faults));
        let config = StagingConfig { limits, ..config(dir.path()) };
        let stager = Stager::with_protocols(config, vec![faulty.clone()], vec![]);
        Self { dir, faulty, stager }
    }

    async fn send(&self, address: String, bytes: &[u8]) -> Result<Delivered, DeliverError> {
        let content =
            Content { digest: Digest::of(bytes), bytes: bytes.len() as u64, kind: Kind::File };
        self.send_as(address, bytes, content).await
    }

    /// What is said to be something else, perhaps.
    async fn send_as(
        &self,
        address: String,
        bytes: &[u8],
        content: Content,
    ) -> Result<Delivered, DeliverError> {
        let source = self.dir.path().join("source");
        std::fs::write(&source, bytes).expect("a file");
        let (address, over) = (address.into(), Over::Same);
        let delivery = Delivery { source, content, address, over, progress: None };
        self.stager.deliver(delivery, Forgetful).await
    }
}

async fn writes(target: impl Target + 'static) {
    let shared: Arc<dyn Target> = Arc::new(target);
    let target = &*shared;
    names(target).await;
    replaced(&shared).await;
    directories(target).await;
    slowly(target).await;
    over::over(target).await;
    faults::faults(target).await;
    left_over(target).await;
    killed::killed(target).await;
}

/// Files come to be there, with the directories above them, and are not sent twice.
async fn names(target: &dyn Target) {
    let large = noise(11, 5_000_001);
    let odd = ["a b", "100%", "q?x=y#z", "na\u{ef}ve-\u{65e5}\u{672c}", "it's \"q\"", "+&;"];
    let named = odd.iter().map(|name| (*name, name.as_bytes()));
    for (name, bytes) in named.chain([("empty", &b""[..]), ("deep/er/large", &large)]) {
        if !name.split('/').all(|part| target.can_name(part)) {
            continue;
        }
        let (sender, name) = (Sender::new(target, vec![]), format!("names/{name}"));
        let sent = sender.send(target.address(&name), bytes).await;
        assert_eq!(sent, Ok(Delivered::Copied), "{name}");
        assert!(look(target, &name).await.as_deref() == Some(bytes), "{name}");
        let puts = sender.faulty.puts();
        let again = sender.send(target.address(&name), bytes).await;
        assert_eq!(again, Ok(Delivered::AlreadyThere), "{name}");
        assert_eq!(sender.faulty.puts(), puts, "nothing is sent");
    }
}

/// Whoever reads meanwhile sees one file or the other.
async fn replaced(target: &Arc<dyn Target>) {
    let (old, new) = (noise(12, 300_000), noise(13, 310_001));
    let sender = Sender::new(&**target, vec![]);
    sender.send(target.address("replaced"), &old).await.expect("sent");
    let is_over = Arc::new(AtomicBool::new(false));
    let looks = Arc::new(AtomicU32::new(0));
    let reader = tokio::spawn({
        let (target, old, new) = (Arc::clone(target), old.clone(), new.clone());
        let (is_over, looks) = (Arc::clone(&is_over), Arc::clone(&looks));
        async move {
            while !is_over.load(Ordering::SeqCst) {
                let found = look(&*target, "replaced").await.expect("there is always one");
                assert!(found == old || found == new, "{} bytes are neither", found.len());
                looks.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    for turn in 0..10_000 {
        if turn >= 8 && looks.load(Ordering::SeqCst) > 8 {
            break;
        }
        let bytes = if turn % 2 == 0 { &new } else { &old };
        let sent = sender.send(target.address("replaced"), bytes).await;
        assert_eq!(sent, Ok(Delivered::Copied));
    }
    is_over.store(true, Ordering::SeqCst);
    reader.await.expect("only whole files are seen");
    assert!(looks.load(Ordering::SeqCst) > 8, "nobody looked");
}

async fn directories(target: &dyn Target) {
    let mut files = vec![("plain", &b"plain"[..]), ("empty", b""), ("a b/100%", b"percent")];
    files.push(("deep/er/q?x=y#z+&;", b"signs"));
    let sender = Sender::new(target, vec![]);
    let source = sender.dir.path().join("tree");
    for (name, bytes) in &files {
        let path = source.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, bytes).expect("a file");
    }
    let send = async || {
        let content = digest_path(&source, Kind::Directory, &Forgetful, true).expect("a digest");
        let (source, address) = (source.clone(), target.address("out/tree").into());
        let delivery = Delivery { source, content, address, over: Over::Same, progress: None };
        sender.stager.deliver(delivery, Forgetful).await.expect("sent")
    };
    std::fs::create_dir_all(source.join("none/at all")).expect("a directory");
    assert_eq!(send().await, Delivered::Copied);
    if let Some(path) = target.path("out/tree/none/at all") {
        let has_directories = target.protocol().writing() != Writing::Whole;
        assert_eq!(path.is_dir(), has_directories, "what is empty is sent where it can be");
    }
    for (name, bytes) in &files {
        let found = look(target, &format!("out/tree/{name}")).await;
        assert_eq!(found.as_deref(), Some(*bytes), "{name}");
    }
    let puts = sender.faulty.puts();
    assert_eq!(send().await, Delivered::AlreadyThere);
    assert_eq!(sender.faulty.puts(), puts, "nothing is sent");
    std::fs::write(source.join("plain"), b"not so plain").expect("a file");
    assert_eq!(send().await, Delivered::Copied);
    let found = look(target, "out/tree/plain").await;
    assert_eq!(found.as_deref(), Some(&b"not so plain"[..]));
    assert_nothing_beside(target, "out/tree");
}

/// What crashes left beside, of contents that nobody sends any more, goes; what may be under way
/// stays, and so does what is not ours.
async fn left_over(target: &dyn Target) {
    let Some(above) = target.path("left") else { return };
    if target.protocol().writing() == Writing::Whole {
        return;
    }
    let (of_content, of_process) = ("0123456789ab", format!("{}-0", u32::MAX));
    let ours = if is_asked(target) { of_content.to_owned() } else { of_process };
    let names = [
        (format!(".old.keelboat-{ours}"), 48, false),
        (format!(".old tree.keelboat-{ours}/below/file"), 48, false),
        (format!(".young.keelboat-{ours}"), 20, true),
        (format!(".young tree.keelboat-{ours}/below/file"), 20, true),
        (format!("old.keelboat-{ours}"), 48, true),
        (".old.keelboat-notes".to_owned(), 48, true),
        (".old".to_owned(), 48, true),
    ];
    for (name, hours, _) in &names {
        let path = above.join(name);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        std::fs::write(&path, b"x").expect("written");
        let then = SystemTime::now() - Duration::from_hours(*hours);
        for path in path.ancestors().take_while(|path| *path != above) {
            // Of what is under way it is the file below that says so.
            let then = if path.is_dir() { then - Duration::from_hours(48) } else { then };
            std::fs::File::open(path).and_then(|file| file.set_modified(then)).expect("set");
        }
    }
    let sender = Sender::new(target, vec![]);
    sender.send(target.address("left/file"), b"new").await.expect("sent");
    for (name, _, stays) in &names {
        assert_eq!(above.join(name).exists(), *stays, "{name}");
    }
    assert!(!above.join(format!(".old tree.keelboat-{ours}")).exists(), "nothing of it stays");
}

/// No more bytes go out in a second than are allowed; and who waits for that has not stalled.
async fn slowly(target: &dyn Target) {
    if !is_asked(target) {
        return;
    }
    let bytes = noise(21, 700_000);
    let limit = Limit { bytes_per_second: Some(500_000), ..Limit::default() };
    let protocol = target.protocol();
    let schemes = protocol.schemes().iter().map(|scheme| ((*scheme).to_owned(), limit));
    let limits = QueueLimits { schemes: schemes.collect(), ..QueueLimits::default() };
    let sender = Sender::within(target, vec![], limits);
    sender.send(target.address("slow/file"), &bytes).await.expect("sent");
    // 700 kB at 500 kB/s, less a quarter of a second's worth at once and the last 256 KiB on credit.
    let (slowest, puts) = (sender.faulty.slowest(), sender.faulty.puts());
    assert!(slowest >= Duration::from_millis(600), "{slowest:?}");
    assert_eq!(puts, 1, "a pause is no stall, though it is longer than one may be");
}

/// No name that was used on the way is left.
fn assert_nothing_beside(target: &dyn Target, name: &str) {
    let Some(path) = target.path(name) else { return };
    let (above, own) = (path.parent().expect("a directory"), path.file_name());
    for entry in std::fs::read_dir(above).expect("a directory") {
        let found = entry.expect("an entry").file_name();
        let is_other = Some(&*found) == own || !found.to_string_lossy().contains("keelboat");
        assert!(is_other, "{} is left", found.display());
    }
}
