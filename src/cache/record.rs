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
//! word 5   JSON offset 32 │ gzip offset 32         offsets from the record's start
//! word 6   ETag: hash of the JSON body 64
//! word 7   gzip length 24 │ born 40                born: CLOCK_BOOTTIME before the SELECT, in 2^20 ns
//!
//! A gzip length of 0: there is no such variant.
//! ```

use rkyv::rancor::Error as RkyvError;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use crate::cache::fence::Token;
use crate::catalogue::View;
use crate::limits::RECORD_HEADER_SIZE_BYTES;

/// What a record answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    Product = 1,
    Styles = 2,
    Related = 3,
    /// A page of products; the id packs page and count.
    List = 4,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        [Kind::Product, Kind::Styles, Kind::Related, Kind::List].into_iter().find(|k| *k as u8 == byte)
    }
}

/// A cache key: kind and product id (for lists, page and count).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub kind: Kind,
    pub id: i64,
}

impl Key {
    pub fn new(kind: Kind, id: i64) -> Key {
        Key { kind, id }
    }

    /// The fence that voids this key: (kind, product id); all list pages share one.
    pub fn fence(self) -> Key {
        match self.kind {
            Kind::List => Key::new(Kind::List, -1),
            _ => self,
        }
    }
}

/// A representation of the body (RFC 9110, 8.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Identity,
    Gzip,
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
const GZIP_LEN_MAX: usize = (1 << (64 - BORN_BITS)) - 1;
const _: () = assert!(crate::limits::GZIP_SIZE_MAX_BYTES * 2 < GZIP_LEN_MAX);

/// The header of a record, unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    pub len_bytes: u32,
    pub checksum: u32,
    pub key: Key,
    pub status: u16,
    pub token: Token,
    pub reading: Reading,
    pub json_at: u32,
    pub json_len: u32,
    pub gzip_at: u32,
    pub gzip_len: u32,
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
        [
            pair(self.len_bytes, self.checksum),
            self.key.id as u64,
            kind | u64::from(self.token.lane),
            self.reading.position,
            pair(self.token.epoch, self.json_len),
            pair(self.json_at, self.gzip_at),
            self.etag,
            u64::from(self.gzip_len) << BORN_BITS | (self.reading.born_ns >> BORN_SHIFT),
        ]
    }

    /// Any eight words give some header; [`RecordHeader::is_plausible`] tells whether it can be one of ours.
    /// A kind that doesn't exist becomes a length of 0.
    pub fn unpack(words: &[u64; HEADER_WORDS]) -> RecordHeader {
        let (high, low) = (|w: u64| (w >> 32) as u32, |w: u64| w as u32);
        let kind = Kind::from_byte((words[2] >> 56) as u8);
        RecordHeader {
            len_bytes: if kind.is_some() { high(words[0]) } else { 0 },
            checksum: low(words[0]),
            key: Key { kind: kind.unwrap_or(Kind::Product), id: words[1] as i64 },
            status: (words[2] >> 32) as u16,
            token: Token { lane: low(words[2]), epoch: high(words[4]) },
            reading: Reading {
                born_ns: (words[7] & ((1 << BORN_BITS) - 1)) << BORN_SHIFT,
                position: words[3],
            },
            json_at: high(words[5]),
            json_len: low(words[4]),
            gzip_at: low(words[5]),
            gzip_len: (words[7] >> BORN_BITS) as u32,
            etag: words[6],
        }
    }

    /// Whether lengths and offsets fit each other and `room_bytes`.
    pub fn is_plausible(&self, room_bytes: usize) -> bool {
        let len = self.len_bytes as usize;
        let inside =
            |at: u32, n: u32| at as usize >= RECORD_HEADER_SIZE_BYTES && at as usize + n as usize <= len;
        len > RECORD_HEADER_SIZE_BYTES
            && self.stored_size_bytes() <= room_bytes
            && inside(self.json_at, self.json_len)
            && (self.gzip_len == 0 || inside(self.gzip_at, self.gzip_len))
    }

    /// Room taken in a segment.
    pub fn stored_size_bytes(&self) -> usize {
        (self.len_bytes as usize).next_multiple_of(16)
    }

    /// Offset and length of a body; the identity one where there is no gzip.
    pub fn body(&self, encoding: Encoding) -> (usize, usize) {
        match encoding {
            Encoding::Gzip if self.gzip_len > 0 => (self.gzip_at as usize, self.gzip_len as usize),
            _ => (self.json_at as usize, self.json_len as usize),
        }
    }

    /// The encoding that is sent when the client takes `wanted`.
    pub fn encoding(&self, wanted: Encoding) -> Encoding {
        if self.gzip_len > 0 {
            wanted
        } else {
            Encoding::Identity
        }
    }
}

/// What a record's archive holds.
#[derive(Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Entry {
    pub view: View,
    pub json: Vec<u8>,
    pub gzip: Vec<u8>,
}

/// Size and alignment of the archived types: part of what two binaries must agree on.
pub fn archive_shape() -> String {
    format!(
        "{}/{} view {} product {} style {}",
        size_of::<ArchivedEntry>(),
        align_of::<ArchivedEntry>(),
        size_of::<crate::catalogue::ArchivedView>(),
        size_of::<crate::catalogue::ArchivedProduct>(),
        size_of::<crate::catalogue::ArchivedStyle>(),
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
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("archiving the record failed: {0}")]
    Archive(RkyvError),
    #[error("the archive just made does not validate: {0}")]
    Invalid(RkyvError),
    #[error("the record is larger than 4 GiB, or its gzip variant than 16 MiB")]
    TooLarge,
}

impl Record {
    /// Archives `entry`, checks the archive (bytecheck), and puts the header in front.
    pub fn make(
        key: Key,
        token: Token,
        reading: Reading,
        status: u16,
        entry: &Entry,
    ) -> Result<Record, RecordError> {
        let archive = rkyv::to_bytes::<RkyvError>(entry).map_err(RecordError::Archive)?;
        let archived = rkyv::access::<ArchivedEntry, RkyvError>(&archive).map_err(RecordError::Invalid)?;
        let base = archive.as_ptr() as usize - RECORD_HEADER_SIZE_BYTES;
        let offset =
            |bytes: &[u8]| u32::try_from(bytes.as_ptr() as usize - base).map_err(|_| RecordError::TooLarge);
        let len = |n: usize| u32::try_from(n).map_err(|_| RecordError::TooLarge);
        if entry.gzip.len() > GZIP_LEN_MAX {
            return Err(RecordError::TooLarge);
        }
        let header = RecordHeader {
            len_bytes: len(RECORD_HEADER_SIZE_BYTES + archive.len())?,
            checksum: checksum(&archive),
            key,
            status,
            token,
            reading: Reading { born_ns: reading.born_ns & !((1 << BORN_SHIFT) - 1), ..reading },
            json_at: offset(archived.json.as_slice())?,
            json_len: len(entry.json.len())?,
            gzip_at: if entry.gzip.is_empty() { 0 } else { offset(archived.gzip.as_slice())? },
            gzip_len: len(entry.gzip.len())?,
            etag: etag_of(&entry.json),
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
        let entry = Entry { view: View::Related(vec![2, 3]), json: b"[2,3]".to_vec(), gzip: vec![9; 20] };
        let token = Token { lane: 7, epoch: 9 };
        let reading = Reading { born_ns: 42 << BORN_SHIFT | 7, position: u64::MAX - 3 };
        Record::make(Key::new(Kind::Related, -5), token, reading, 200, &entry).unwrap()
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
        let mut out = Vec::new();
        record.copy_body(Encoding::Identity, &mut out);
        assert_eq!(out, b"[2,3]");
        out.clear();
        record.copy_body(Encoding::Gzip, &mut out);
        assert_eq!(out, [9; 20]);
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
