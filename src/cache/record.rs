//! A record: a fixed header that every reader copies, then one rkyv archive that holds the typed fields and the
//! bodies ready to be sent. One function packs the header, one unpacks it.
//! Runs in: worker.
//!
//! ```text
//! word 0   length in bytes, header included 32 │ crc32c-like checksum of the archive 32
//! word 1   key id 64
//! word 2   key kind 8 │ 0 8 │ status 16 │ fence lane 32
//! word 3   position in time of the snapshot it was read from 64
//! word 4   epoch 32 │ JSON length 32
//! word 5   0 4 │ zstd length 20 │ br length 20 │ gzip length 20
//! word 6   ETag: hash of the JSON body 64
//! word 7   head length 8 │ key variant 16 │ born 40     born: CLOCK_BOOTTIME before the SELECT, in 2^20 ns
//!
//! then     head lines │ JSON │ gzip │ br │ zstd │ the view's archive
//! ```
//! A length of 0: there is no such variant. The bodies are the archive's first field, which rkyv writes first.

use std::fmt;

use rkyv::rancor::Error as RkyvError;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use crate::cache::fence::Token;
use crate::catalogue::{View, What};
use crate::limits::RECORD_HEADER_SIZE_BYTES;

/// What a record answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    Product = 1,
    Styles = 2,
    Related = 3,
    /// A page of products: the variant is its count, the id the products before it.
    List = 4,
    /// Ratings of a product, summed up.
    Meta = 5,
    /// The first page of a product's reviews: the variant packs order and count.
    Reviews = 6,
    /// The first page of a product's questions: the variant is its count.
    Questions = 7,
    /// The first page of a question's answers: the variant is its count, the id the question's.
    Answers = 8,
}

pub const KINDS: [Kind; 8] = [
    Kind::Product,
    Kind::Styles,
    Kind::Related,
    Kind::List,
    Kind::Meta,
    Kind::Reviews,
    Kind::Questions,
    Kind::Answers,
];

impl Kind {
    /// From 0, in the order of their numbers.
    pub fn index(self) -> usize {
        self as usize - 1
    }

    /// Kinds of answers that a change makes void.
    pub fn made_from(what: What) -> &'static [Kind] {
        match what {
            What::Product => &[Kind::Product, Kind::List],
            What::Existence => &[Kind::Product, Kind::Styles, Kind::Related, Kind::List],
            What::Features => &[Kind::Product],
            What::Styles => &[Kind::Styles],
            What::Related => &[Kind::Related],
            What::Reviews => &[Kind::Reviews, Kind::Meta],
            What::Characteristics => &[Kind::Meta],
            What::Questions => &[Kind::Questions],
            What::Answers => &[Kind::Answers],
            // What they are part of is another change; and everything has a store of its own.
            What::Style | What::Review | What::Question | What::Answer | What::Everything => &[],
        }
    }

    fn from_byte(byte: u8) -> Option<Kind> {
        KINDS.into_iter().find(|k| *k as u8 == byte)
    }
}

/// A cache key: kind, id (a product's, for most kinds), and which of its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub kind: Kind,
    pub variant: u16,
    pub id: i64,
}

impl Key {
    pub fn new(kind: Kind, id: i64) -> Key {
        Key::variant(kind, id, 0)
    }

    pub fn variant(kind: Kind, id: i64, variant: u16) -> Key {
        Key { kind, variant, id }
    }

    /// The fence that voids this key: (kind, id), whatever the variant; all pages of products share one.
    pub fn fence(self) -> Key {
        match self.kind {
            Kind::List => Key::new(Kind::List, -1),
            kind => Key::new(kind, self.id),
        }
    }
}

/// A representation of the body (RFC 9110, 8.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Identity,
    Gzip,
    Br,
    Zstd,
}

/// When a value was read, and from which state of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// CLOCK_BOOTTIME before the SELECT was sent, in ns; a record keeps it to the millisecond.
    pub born_ns: u64,
    /// Position of the SELECT's snapshot: a later snapshot has a higher one.
    pub position: u64,
}

/// Born in a record: 40 bits of 2^20 ns each.
const BORN_SHIFT: u32 = 20;
const BORN_BITS: u32 = 40;
const VARIANT_BITS: u32 = 16;
/// Lengths of compressed bodies.
const CODED_BITS: u32 = 20;
const CODED_LEN_MAX: usize = (1 << CODED_BITS) - 1;
const HEAD_LEN_MAX: usize = u8::MAX as usize;
const _: () =
    assert!(crate::limits::GZIP_SIZE_MAX_BYTES < CODED_LEN_MAX && BORN_BITS + VARIANT_BITS + 8 == 64);

/// The header of a record, unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    pub len_bytes: u32,
    pub checksum: u32,
    pub key: Key,
    pub status: u16,
    pub token: Token,
    pub reading: Reading,
    pub head_len: u8,
    pub json_len: u32,
    /// Lengths of the bodies compressed by gzip, br, zstd.
    pub coded_len: [u32; 3],
    pub etag: u64,
}

const HEADER_WORDS: usize = RECORD_HEADER_SIZE_BYTES / 8;
const _: () = assert!(HEADER_WORDS == 8);

fn pair(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

impl RecordHeader {
    pub fn pack(&self) -> [u64; HEADER_WORDS] {
        let kind = u64::from(self.key.kind as u8) << 56 | u64::from(self.status) << 32;
        let coded = |n: usize| u64::from(self.coded_len[n]);
        [
            pair(self.len_bytes, self.checksum),
            self.key.id as u64,
            kind | u64::from(self.token.lane),
            self.reading.position,
            pair(self.token.epoch, self.json_len),
            coded(2) << (2 * CODED_BITS) | coded(1) << CODED_BITS | coded(0),
            self.etag,
            u64::from(self.head_len) << (BORN_BITS + VARIANT_BITS)
                | u64::from(self.key.variant) << BORN_BITS
                | (self.reading.born_ns >> BORN_SHIFT),
        ]
    }

    /// Any eight words give some header; [`RecordHeader::is_plausible`] tells whether it can be one of ours.
    /// A kind that doesn't exist becomes a length of 0.
    pub fn unpack(words: &[u64; HEADER_WORDS]) -> RecordHeader {
        let (high, low) = (|w: u64| (w >> 32) as u32, |w: u64| w as u32);
        let kind = Kind::from_byte((words[2] >> 56) as u8);
        let coded = |n: u32| (words[5] >> (n * CODED_BITS)) as u32 & CODED_LEN_MAX as u32;
        RecordHeader {
            len_bytes: if kind.is_some() { high(words[0]) } else { 0 },
            checksum: low(words[0]),
            key: Key {
                kind: kind.unwrap_or(Kind::Product),
                variant: (words[7] >> BORN_BITS) as u16,
                id: words[1] as i64,
            },
            status: (words[2] >> 32) as u16,
            token: Token { lane: low(words[2]), epoch: high(words[4]) },
            reading: Reading {
                born_ns: (words[7] & ((1 << BORN_BITS) - 1)) << BORN_SHIFT,
                position: words[3],
            },
            head_len: (words[7] >> (BORN_BITS + VARIANT_BITS)) as u8,
            json_len: low(words[4]),
            coded_len: [coded(0), coded(1), coded(2)],
            etag: words[6],
        }
    }

    /// Whether the lengths fit each other and `room_bytes`.
    pub fn is_plausible(&self, room_bytes: usize) -> bool {
        let len = self.len_bytes as usize;
        let (zstd_at, zstd_len) = self.place(Encoding::Zstd);
        len > RECORD_HEADER_SIZE_BYTES && self.stored_size_bytes() <= room_bytes && zstd_at + zstd_len <= len
    }

    /// Room taken in a segment.
    pub fn stored_size_bytes(&self) -> usize {
        (self.len_bytes as usize).next_multiple_of(16)
    }

    /// Offset and length of the head lines.
    pub fn head(&self) -> (usize, usize) {
        (RECORD_HEADER_SIZE_BYTES, self.head_len as usize)
    }

    /// Offset and length of a body; the identity one where there is no such variant.
    pub fn body(&self, encoding: Encoding) -> (usize, usize) {
        match self.has(encoding) {
            true => self.place(encoding),
            false => self.place(Encoding::Identity),
        }
    }

    /// Whether there is such a variant.
    pub fn has(&self, encoding: Encoding) -> bool {
        match encoding {
            Encoding::Identity => self.json_len > 0,
            Encoding::Gzip => self.coded_len[0] > 0,
            Encoding::Br => self.coded_len[1] > 0,
            Encoding::Zstd => self.coded_len[2] > 0,
        }
    }

    fn place(&self, encoding: Encoding) -> (usize, usize) {
        let [gzip, br, zstd] = self.coded_len.map(|len| len as usize);
        let json = self.json_len as usize;
        let json_at = RECORD_HEADER_SIZE_BYTES + self.head_len as usize;
        match encoding {
            Encoding::Identity => (json_at, json),
            Encoding::Gzip => (json_at + json, gzip),
            Encoding::Br => (json_at + json + gzip, br),
            Encoding::Zstd => (json_at + json + gzip + br, zstd),
        }
    }
}

/// What goes out: header lines, and the body in each encoding; empty where it does not pay.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Bodies {
    /// Whole lines, at most 255 bytes.
    pub head: Vec<u8>,
    pub json: Vec<u8>,
    pub gzip: Vec<u8>,
    pub br: Vec<u8>,
    pub zstd: Vec<u8>,
}

/// What a record's archive holds.
#[derive(Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Entry {
    /// [`Bodies`], one after the other. The first field: its bytes are the archive's first.
    bodies: Vec<u8>,
    pub view: View,
}

/// Size and alignment of the archived types: part of what two binaries must agree on.
pub fn archive_shape() -> String {
    format!(
        "{}/{} view {} product {} style {} review {} question {}",
        size_of::<ArchivedEntry>(),
        align_of::<ArchivedEntry>(),
        size_of::<crate::catalogue::ArchivedView>(),
        size_of::<crate::catalogue::ArchivedProduct>(),
        size_of::<crate::catalogue::ArchivedStyle>(),
        size_of::<crate::catalogue::ArchivedReview>(),
        size_of::<crate::catalogue::ArchivedQuestion>(),
    )
}

/// A record in private memory: made for a fill, or copied out of the arena.
#[derive(Debug)]
pub struct Record {
    header: RecordHeader,
    /// Header and archive, padded to a multiple of 16 bytes.
    words: Vec<u64>,
}

/// Why a record can't be made.
#[derive(Debug)]
pub enum RecordError {
    Archive(RkyvError),
    Invalid(RkyvError),
    TooLarge,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordError::Archive(why) => write!(f, "archiving the record failed: {why}"),
            RecordError::Invalid(why) => write!(f, "the archive just made does not validate: {why}"),
            RecordError::TooLarge => {
                write!(f, "the record is larger than 4 GiB, a compressed body than a MiB, or its head than 255 bytes")
            }
        }
    }
}

impl std::error::Error for RecordError {}

impl Record {
    /// Archives view and bodies, checks the archive (bytecheck), and puts the header in front.
    pub fn make(
        key: Key,
        token: Token,
        reading: Reading,
        status: u16,
        view: View,
        bodies: &Bodies,
    ) -> Result<Record, RecordError> {
        let Bodies { head, json, gzip, br, zstd } = bodies;
        let coded = [gzip, br, zstd];
        if head.len() > HEAD_LEN_MAX || coded.iter().any(|body| body.len() > CODED_LEN_MAX) {
            return Err(RecordError::TooLarge);
        }
        let entry = Entry { bodies: [head, json, gzip, br, zstd].map(Vec::as_slice).concat(), view };
        let archive = rkyv::to_bytes::<RkyvError>(&entry).map_err(RecordError::Archive)?;
        let archived = rkyv::access::<ArchivedEntry, RkyvError>(&archive).map_err(RecordError::Invalid)?;
        // INVARIANT: readers find the bodies at the archive's beginning.
        assert!(entry.bodies.is_empty() || std::ptr::eq(archived.bodies.as_ptr(), archive.as_ptr()));
        let len = |n: usize| u32::try_from(n).map_err(|_| RecordError::TooLarge);
        let header = RecordHeader {
            len_bytes: len(RECORD_HEADER_SIZE_BYTES + archive.len())?,
            checksum: checksum(&archive),
            key,
            status,
            token,
            reading: Reading { born_ns: reading.born_ns & !((1 << BORN_SHIFT) - 1), ..reading },
            head_len: head.len() as u8,
            json_len: len(json.len())?,
            coded_len: coded.map(|body| body.len() as u32),
            etag: etag_of(json),
        };
        let mut words = header.pack().to_vec();
        words.extend(archive.chunks(8).map(|chunk| {
            let mut bytes = [0u8; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(bytes)
        }));
        words.resize(header.stored_size_bytes() / 8, 0);
        Ok(Record { header, words })
    }

    /// A record copied out of the arena, if length, checksum and archive hold.
    pub fn open(bytes: &[u8]) -> Option<Record> {
        let mut words: Vec<u64> = bytes
            .chunks(8)
            .map(|chunk| {
                let mut word = [0u8; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                u64::from_le_bytes(word)
            })
            .collect();
        let header = RecordHeader::unpack(words.first_chunk::<HEADER_WORDS>()?);
        if header.len_bytes as usize != bytes.len() || !header.is_plausible(bytes.len().next_multiple_of(16))
        {
            return None;
        }
        let archive = &bytes[RECORD_HEADER_SIZE_BYTES..];
        if checksum(archive) != header.checksum {
            return None;
        }
        words.resize(header.stored_size_bytes() / 8, 0);
        let record = Record { header, words };
        record.entry().is_some().then_some(record)
    }

    pub fn header(&self) -> &RecordHeader {
        &self.header
    }

    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Appends the head lines to `out`.
    pub fn copy_head(&self, out: &mut Vec<u8>) {
        let (at, len) = self.header.head();
        out.extend_from_slice(&self.bytes()[at..at + len]);
    }

    /// Appends a body to `out`.
    pub fn copy_body(&self, encoding: Encoding, out: &mut Vec<u8>) {
        let (at, len) = self.header.body(encoding);
        out.extend_from_slice(&self.bytes()[at..at + len]);
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: a slice of u64 may be read as bytes; the words are private to this record.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), self.header.len_bytes as usize) }
    }

    /// The archive's contents, validated and owned.
    pub fn entry(&self) -> Option<Entry> {
        let archive = &self.bytes()[RECORD_HEADER_SIZE_BYTES..];
        let mut aligned: AlignedVec = AlignedVec::with_capacity(archive.len());
        aligned.extend_from_slice(archive);
        rkyv::from_bytes::<Entry, RkyvError>(&aligned).ok()
    }
}

/// The ETag of a body: its hash, the same on every box.
pub fn etag_of(json: &[u8]) -> u64 {
    rapidhash::v3::rapidhash_v3(json)
}

fn checksum(archive: &[u8]) -> u32 {
    rapidhash::v3::rapidhash_v3(archive) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let bodies = Bodies {
            head: b"Link: x\r\n".to_vec(),
            json: b"[2,3]".to_vec(),
            gzip: vec![9; 20],
            br: Vec::new(),
            zstd: vec![7; 15],
        };
        let token = Token { lane: 7, epoch: 9 };
        let reading = Reading { born_ns: 42 << BORN_SHIFT | 7, position: u64::MAX - 3 };
        let key = Key::variant(Kind::Related, -5, 513);
        Record::make(key, token, reading, 200, View::Related(vec![2, 3]), &bodies).unwrap()
    }

    #[test]
    fn header_survives_packing() {
        let header = *record().header();
        assert_eq!(header.reading, Reading { born_ns: 42 << BORN_SHIFT, position: u64::MAX - 3 });
        assert_eq!(RecordHeader::unpack(&header.pack()), header);
        assert!(header.is_plausible(header.stored_size_bytes()));
    }

    #[test]
    fn bodies_lie_where_the_header_says() {
        let record = record();
        let body = |encoding| {
            let mut out = Vec::new();
            record.copy_body(encoding, &mut out);
            out
        };
        assert_eq!(body(Encoding::Identity), b"[2,3]");
        assert_eq!(body(Encoding::Gzip), [9; 20]);
        assert_eq!(body(Encoding::Br), b"[2,3]", "there is none");
        assert_eq!(body(Encoding::Zstd), [7; 15]);
        let mut head = Vec::new();
        record.copy_head(&mut head);
        assert_eq!(head, b"Link: x\r\n");
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let record = record();
        let good = record.bytes().to_vec();
        assert_eq!(Record::open(&good).unwrap().entry().unwrap().view, View::Related(vec![2, 3]));
        for at in RECORD_HEADER_SIZE_BYTES..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(Record::open(&bad).is_none(), "byte {at}");
        }
        assert!(Record::open(&good[..good.len() - 1]).is_none());
        assert!(Record::open(&[]).is_none());
    }

    #[test]
    fn hostile_headers_are_implausible_and_never_panic() {
        for seed in 0..10_000u64 {
            let words: [u64; 8] =
                std::array::from_fn(|n| rapidhash::v3::rapidhash_v3(&(seed * 8 + n as u64).to_le_bytes()));
            let header = RecordHeader::unpack(&words);
            assert!(!header.is_plausible(4096) || header.stored_size_bytes() <= 4096);
        }
    }
}
