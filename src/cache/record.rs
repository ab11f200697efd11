//! A record: a fixed header that every reader copies, then one rkyv archive that holds the typed fields and the
//! bodies ready to be sent. One function packs the header, one unpacks it.
//! Runs in: worker.
//!
//! ```text
//!         63              48 47               32 31                16 15                0
//! word 0  │ ETag: hash of the JSON body 64                                              │
//! word 1  │ key id 48                                           │ key variant 12 │ kind 4 │
//! word 2  │ fence lane 32                       │ epoch 24              │ head length 8   │
//! word 3  │ snapshot position, low bits 48                      │ missing 1 │ length 15   │
//! word 4  │ born 32                             │ checksum 32                             │
//! word 5  │ 0 2 │ zstd length 15 │ br length 15 │ gzip length 15 │ JSON length 17          │
//!
//! then    head lines │ JSON │ gzip │ br │ zstd │ the view's archive      (the archive, rkyv's from here on)
//! ```
//! The length is the whole record's, in 8 bytes; a body's length of 0: there is no such variant. Missing: there is no such product. Born: CLOCK_BOOTTIME before the
//! SELECT, in 2^24 ns, wrapping after two years. Checksum: of all that the ETag is not a hash of. The bodies are the archive's
//! first field, which rkyv writes first; its size is a multiple of 8.

use std::fmt;
use std::str::FromStr;

use rkyv::rancor::Error as RkyvError;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use crate::cache::fence::{Token, EPOCH_MASK};
use crate::cache::reading::{Order, Reading, BORN_SHIFT, POSITION_MASK};
use crate::catalogue::{View, What};
use crate::limits::{
    CODED_SIZE_MAX_BYTES, RECORD_HEADER_SIZE_BYTES, RECORD_SIZE_MAX_BYTES, VALUE_SIZE_MAX_BYTES,
};

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

    /// As settings and commands name it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Product => "product",
            Kind::Styles => "styles",
            Kind::Related => "related",
            Kind::List => "list",
            Kind::Meta => "meta",
            Kind::Reviews => "reviews",
            Kind::Questions => "questions",
            Kind::Answers => "answers",
        }
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

    #[inline]
    fn from_number(number: usize) -> Option<Kind> {
        KINDS.get(number.wrapping_sub(1)).copied()
    }
}

/// A cache key: kind, id (a product's, for most kinds), and which of its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub kind: Kind,
    pub variant: u16,
    pub id: i64,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.name(), self.id)?;
        match self.variant {
            0 => Ok(()),
            variant => write!(f, ":{variant}"),
        }
    }
}

impl FromStr for Key {
    type Err = String;

    /// KIND:ID or KIND:ID:VARIANT.
    fn from_str(text: &str) -> Result<Key, String> {
        let kinds = || KINDS.map(Kind::name).join(", ");
        let (kind, rest) =
            text.split_once(':').ok_or("expected KIND:ID or KIND:ID:VARIANT, as in product:17")?;
        let kind = KINDS.into_iter().find(|known| known.name() == kind);
        let kind = kind.ok_or_else(|| format!("the kinds are {}", kinds()))?;
        let (id, variant) = rest.split_once(':').unwrap_or((rest, "0"));
        let id = id.parse().map_err(|_| format!("{id:?} is no number"))?;
        let variant = variant.parse().map_err(|_| format!("{variant:?} is no number of a variant"))?;
        Ok(Key { kind, variant, id })
    }
}

impl Key {
    pub fn new(kind: Kind, id: i64) -> Key {
        Key::variant(kind, id, 0)
    }

    pub fn variant(kind: Kind, id: i64, variant: u16) -> Key {
        Key { kind, variant, id }
    }

    /// As two words, of which `from_words` makes it again.
    pub fn words(self) -> [u64; 2] {
        [self.id as u64, u64::from(self.variant) << 8 | self.kind as u64]
    }

    /// None: the words are no key's.
    pub fn from_words([id, rest]: [u64; 2]) -> Option<Key> {
        let kind = Kind::from_number((rest & 0xFF) as usize)?;
        Some(Key { kind, variant: (rest >> 8) as u16, id: id as i64 })
    }

    #[inline]
    fn pack(self) -> u64 {
        (self.id as u64) << (64 - ID_BITS) | u64::from(self.variant) << 4 | self.kind as u64
    }

    /// Whether it can be a record's: ids beyond 48 bits are answered uncached.
    #[inline]
    pub fn fits(self) -> bool {
        self.id << (64 - ID_BITS) >> (64 - ID_BITS) == self.id && self.variant < 1 << VARIANT_BITS
    }

    /// The fence that voids this key: (kind, id), whatever the variant; all pages of products share one.
    #[inline]
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

const ID_BITS: u32 = 48;
const VARIANT_BITS: u32 = 12;
const LEN_BITS: u32 = 15;
const JSON_LEN_BITS: u32 = 17;
const CODED_LEN_BITS: u32 = 15;
/// Beside the lengths of the bodies: the position is one of the WAL.
const BY_WAL: u64 = 1 << (JSON_LEN_BITS + 3 * CODED_LEN_BITS);
const HEAD_LEN_MAX: usize = u8::MAX as usize;
const _: () = assert!(RECORD_SIZE_MAX_BYTES / 8 < 1 << LEN_BITS);
const _: () = assert!(VALUE_SIZE_MAX_BYTES < 1 << JSON_LEN_BITS);
const _: () = assert!(CODED_SIZE_MAX_BYTES < 1 << CODED_LEN_BITS);

/// The header of a record, unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    pub len_bytes: u32,
    pub checksum: u32,
    pub key: Key,
    /// There is nothing of this key: the answer is 404.
    pub is_missing: bool,
    pub token: Token,
    pub reading: Reading,
    pub head_len: u8,
    pub json_len: u32,
    /// Lengths of the bodies compressed by gzip, br, zstd.
    pub coded_len: [u32; 3],
    pub etag: u64,
}

const HEADER_WORDS: usize = RECORD_HEADER_SIZE_BYTES / 8;
const _: () = assert!(HEADER_WORDS == 6);

/// A header as it was copied out: asked for key and token before it is unpacked.
#[derive(Debug, Clone, Copy)]
pub struct PackedHeader(pub [u64; HEADER_WORDS]);

impl PackedHeader {
    /// Whether it is a record of `key`, of which `fits` holds.
    #[inline]
    pub fn is_of(&self, key: Key) -> bool {
        self.0[1] == key.pack()
    }

    #[inline]
    pub fn token(&self) -> Token {
        Token { lane: (self.0[2] >> 32) as u32, epoch: (self.0[2] >> 8) as u32 & EPOCH_MASK }
    }

    #[inline]
    pub fn is_missing(&self) -> bool {
        self.0[3] >> LEN_BITS & 1 == 1
    }

    #[inline]
    pub fn reading(&self) -> Reading {
        let order = if self.0[5] & BY_WAL == 0 { Order::Snapshots } else { Order::Wal { since: 0 } };
        Reading { born_ns: self.0[4] >> 32 << BORN_SHIFT, position: self.0[3] >> 16, order }
    }

    #[inline]
    pub fn len_bytes(&self) -> usize {
        (self.0[3] as usize & ((1 << LEN_BITS) - 1)) * 8
    }

    #[inline]
    fn coded_len(&self, n: u32) -> usize {
        (self.0[5] >> (JSON_LEN_BITS + n * CODED_LEN_BITS)) as usize & ((1 << CODED_LEN_BITS) - 1)
    }

    #[inline]
    fn json_len(&self) -> usize {
        self.0[5] as usize & ((1 << JSON_LEN_BITS) - 1)
    }

    /// Whether the lengths fit each other and `room_bytes`.
    #[inline]
    pub fn is_plausible(&self, room_bytes: usize) -> bool {
        let bodies = self.json_len() + self.coded_len(0) + self.coded_len(1) + self.coded_len(2);
        let least = RECORD_HEADER_SIZE_BYTES + (self.0[2] as usize & HEAD_LEN_MAX) + bodies;
        least <= self.len_bytes()
            && self.len_bytes() <= room_bytes
            && self.len_bytes() > RECORD_HEADER_SIZE_BYTES
    }

    #[inline(always)]
    pub fn unpack(&self) -> RecordHeader {
        RecordHeader::unpack(&self.0)
    }
}

impl RecordHeader {
    /// The header as words, as far as its fields fit: see [`RecordHeader::fits`].
    fn pack(&self) -> [u64; HEADER_WORDS] {
        let coded = |n: u32| u64::from(self.coded_len[n as usize]) << (JSON_LEN_BITS + n * CODED_LEN_BITS);
        let by_wal = if self.reading.order == Order::Snapshots { 0 } else { BY_WAL };
        [
            self.etag,
            self.key.pack(),
            u64::from(self.token.lane) << 32 | u64::from(self.token.epoch) << 8 | u64::from(self.head_len),
            (self.reading.position & POSITION_MASK) << 16
                | u64::from(self.is_missing) << LEN_BITS
                | u64::from(self.len_bytes / 8),
            (self.reading.born_ns >> BORN_SHIFT) << 32 | u64::from(self.checksum),
            coded(2) | coded(1) | coded(0) | u64::from(self.json_len) | by_wal,
        ]
    }

    /// Whether every field fits into its bits: the value is not too large, and the id within 2^47, which is 140 trillion.
    fn fits(&self) -> bool {
        self.len_bytes as usize <= RECORD_SIZE_MAX_BYTES
            && self.json_len as usize <= VALUE_SIZE_MAX_BYTES
            && self.coded_len.iter().all(|len| *len as usize <= CODED_SIZE_MAX_BYTES)
            && self.key.fits()
    }

    /// Any six words give some header; [`RecordHeader::is_plausible`] tells whether it can be one of ours.
    /// A kind that doesn't exist becomes a length of 0.
    #[inline(always)]
    pub fn unpack(words: &[u64; HEADER_WORDS]) -> RecordHeader {
        let packed = PackedHeader(*words);
        let kind = Kind::from_number(words[1] as usize & 0xF);
        RecordHeader {
            len_bytes: if kind.is_some() { packed.len_bytes() as u32 } else { 0 },
            checksum: words[4] as u32,
            key: Key {
                kind: kind.unwrap_or(Kind::Product),
                variant: (words[1] >> 4) as u16 & ((1 << VARIANT_BITS) - 1),
                id: words[1] as i64 >> (64 - ID_BITS),
            },
            is_missing: packed.is_missing(),
            token: packed.token(),
            reading: packed.reading(),
            head_len: words[2] as u8,
            json_len: packed.json_len() as u32,
            coded_len: std::array::from_fn(|n| packed.coded_len(n as u32) as u32),
            etag: words[0],
        }
    }

    /// Whether the lengths fit each other and `room_bytes`, and the kind is one.
    pub fn is_plausible(&self, room_bytes: usize) -> bool {
        self.len_bytes > 0 && PackedHeader(self.pack()).is_plausible(room_bytes)
    }

    /// Offset and length of the head lines.
    pub fn head(&self) -> (usize, usize) {
        (RECORD_HEADER_SIZE_BYTES, self.head_len as usize)
    }

    /// Offset and length of a body; the identity one where there is no such variant.
    #[inline]
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

    #[inline]
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
    archive: AlignedVec,
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
            RecordError::TooLarge => write!(f, "the record is larger than 4 GiB, or its head than 255 bytes"),
        }
    }
}

impl std::error::Error for RecordError {}

impl Record {
    /// Archives view and bodies, checks the archive (bytecheck), and makes the header that goes in front.
    pub fn make(
        key: Key,
        token: Token,
        reading: Reading,
        view: View,
        bodies: &Bodies,
    ) -> Result<Record, RecordError> {
        let Bodies { head, json, gzip, br, zstd } = bodies;
        let coded = [gzip, br, zstd];
        if head.len() > HEAD_LEN_MAX {
            return Err(RecordError::TooLarge);
        }
        let is_missing = view == View::Missing;
        let entry = Entry { bodies: [head, json, gzip, br, zstd].map(Vec::as_slice).concat(), view };
        let archive = rkyv::to_bytes::<RkyvError>(&entry).map_err(RecordError::Archive)?;
        let archived = rkyv::access::<ArchivedEntry, RkyvError>(&archive).map_err(RecordError::Invalid)?;
        // INVARIANT: readers find the bodies at the archive's beginning.
        assert!(entry.bodies.is_empty() || std::ptr::eq(archived.bodies.as_ptr(), archive.as_ptr()));
        assert!(archive.len().is_multiple_of(8), "the archive's root is aligned to 8 bytes");
        let len = |n: usize| u32::try_from(n).map_err(|_| RecordError::TooLarge);
        let mut header = RecordHeader {
            len_bytes: len(RECORD_HEADER_SIZE_BYTES + archive.len())?,
            checksum: 0,
            key,
            is_missing,
            token,
            reading,
            head_len: head.len() as u8,
            json_len: len(json.len())?,
            coded_len: coded.map(|body| body.len() as u32),
            etag: etag_of(json),
        };
        header.checksum = checksum(&header, &archive);
        Ok(Record { header, archive })
    }

    /// A record copied out of the arena, if its lengths, ETag and checksum hold and its archive validates.
    pub fn open(bytes: &[u8]) -> Option<Record> {
        let record = Record::checked(bytes)?;
        let validates = rkyv::access::<ArchivedEntry, RkyvError>(&record.archive).is_ok();
        validates.then_some(record)
    }

    /// The same without a look at the archive's structure.
    pub fn checked(bytes: &[u8]) -> Option<Record> {
        let (head, rest) = bytes.split_at_checked(RECORD_HEADER_SIZE_BYTES)?;
        let word = |n: usize| u64::from_le_bytes(head[n * 8..][..8].try_into().expect("eight bytes"));
        let header = RecordHeader::unpack(&std::array::from_fn(word));
        if header.len_bytes as usize != bytes.len() || !header.is_plausible(bytes.len()) {
            return None;
        }
        let mut archive = AlignedVec::with_capacity(rest.len());
        archive.extend_from_slice(rest);
        let record = Record { header, archive };
        let json = record.slice(header.place(Encoding::Identity));
        let holds = etag_of(json) == header.etag && checksum(&header, rest) == header.checksum;
        holds.then_some(record)
    }

    pub fn header(&self) -> &RecordHeader {
        &self.header
    }

    /// The words that go into the arena; None for what is not kept, as too large.
    pub fn words(&self) -> Option<impl ExactSizeIterator<Item = u64> + '_> {
        let header = self.header.fits().then(|| self.header.pack())?;
        let len = HEADER_WORDS + self.archive.len() / 8;
        Some((0..len).map(move |n| match n.checked_sub(HEADER_WORDS) {
            None => header[n],
            Some(at) => u64::from_le_bytes(self.archive[at * 8..][..8].try_into().expect("eight bytes")),
        }))
    }

    /// Appends the head lines to `out`.
    pub fn copy_head(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.slice(self.header.head()));
    }

    /// Appends a body to `out`.
    pub fn copy_body(&self, encoding: Encoding, out: &mut Vec<u8>) {
        out.extend_from_slice(self.body(encoding));
    }

    /// A body; the identity one where there is no such variant.
    pub fn body(&self, encoding: Encoding) -> &[u8] {
        self.slice(self.header.body(encoding))
    }

    /// By offset in the record and length.
    fn slice(&self, (at, len): (usize, usize)) -> &[u8] {
        &self.archive[at - RECORD_HEADER_SIZE_BYTES..][..len]
    }

    /// The archive's contents, validated and owned.
    pub fn entry(&self) -> Option<Entry> {
        rkyv::from_bytes::<Entry, RkyvError>(&self.archive).ok()
    }
}

/// The ETag of a body: its hash, the same on every box.
pub fn etag_of(json: &[u8]) -> u64 {
    rapidhash::v3::rapidhash_v3(json)
}

/// Of the header, its own bits left out, and of what lies before and behind the JSON body.
fn checksum(header: &RecordHeader, archive: &[u8]) -> u32 {
    let json_at = usize::from(header.head_len);
    let json_end = json_at + header.json_len as usize;
    let parts = [&archive[..json_at], &archive[json_end..]].map(rapidhash::v3::rapidhash_v3);
    let words = RecordHeader { checksum: 0, ..*header }.pack();
    let bytes: Vec<u8> = words.into_iter().chain(parts).flat_map(u64::to_le_bytes).collect();
    rapidhash::v3::rapidhash_v3(&bytes) as u32
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
        let reading =
            Reading { born_ns: 42 << BORN_SHIFT | 7, position: (1 << 48) - 3, order: Order::Snapshots };
        let key = Key::variant(Kind::Related, -5, 513);
        Record::make(key, token, reading, View::Related(vec![2, 3]), &bodies).unwrap()
    }

    fn bytes_of(record: &Record) -> Vec<u8> {
        record.words().unwrap().flat_map(u64::to_le_bytes).collect()
    }

    #[test]
    fn header_survives_packing() {
        let header = *record().header();
        let unpacked = RecordHeader::unpack(&header.pack());
        assert_eq!(unpacked.reading, Reading { born_ns: 42 << BORN_SHIFT, ..header.reading });
        assert_eq!(RecordHeader { reading: header.reading, ..unpacked }, header);
        assert!(header.is_plausible(header.len_bytes as usize));
    }

    #[test]
    fn every_field_has_bits_of_its_own() {
        let mut full = *record().header();
        full.len_bytes = (RECORD_SIZE_MAX_BYTES / 8 * 8) as u32;
        full.json_len = VALUE_SIZE_MAX_BYTES as u32;
        full.coded_len = [CODED_SIZE_MAX_BYTES as u32; 3];
        full.head_len = 255;
        full.is_missing = true;
        full.token = Token { lane: u32::MAX, epoch: EPOCH_MASK };
        full.key = Key::variant(Kind::Answers, (1 << 47) - 1, 0xFFF);
        full.reading = Reading {
            born_ns: u64::from(u32::MAX) << BORN_SHIFT,
            position: POSITION_MASK,
            order: Order::Wal { since: 0 },
        };
        (full.etag, full.checksum) = (u64::MAX, u32::MAX);
        assert!(full.fits());
        assert_eq!(RecordHeader::unpack(&full.pack()), full);
        for id in [1 << 47, -(1 << 47) - 1, i64::MAX, i64::MIN] {
            assert!(!RecordHeader { key: Key::new(Kind::Product, id), ..full }.fits(), "{id}");
        }
    }

    #[test]
    fn bodies_lie_where_the_header_says() {
        let record = Record::open(&bytes_of(&record())).unwrap();
        assert_eq!(record.body(Encoding::Identity), b"[2,3]");
        assert_eq!(record.body(Encoding::Gzip), [9; 20]);
        assert_eq!(record.body(Encoding::Br), b"[2,3]", "there is none");
        assert_eq!(record.body(Encoding::Zstd), [7; 15]);
        let mut head = Vec::new();
        record.copy_head(&mut head);
        assert_eq!(head, b"Link: x\r\n");
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let good = bytes_of(&record());
        assert_eq!(Record::open(&good).unwrap().entry().unwrap().view, View::Related(vec![2, 3]));
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(Record::open(&bad).is_none(), "byte {at}");
        }
        assert!(Record::open(&good[..good.len() - 8]).is_none());
        assert!(Record::open(&good[..good.len() - 1]).is_none());
        assert!(Record::open(&[]).is_none());
    }

    #[test]
    fn what_is_too_large_to_keep_is_a_record_all_the_same() {
        let make = |json: usize, gzip: usize| {
            let bodies = Bodies { json: vec![b'x'; json], gzip: vec![1; gzip], ..Bodies::default() };
            let record = Record::make(
                Key::new(Kind::Product, 1),
                Token { lane: 0, epoch: 0 },
                Reading::default(),
                View::Styles(vec![]),
                &bodies,
            );
            record.unwrap()
        };
        assert!(make(VALUE_SIZE_MAX_BYTES, CODED_SIZE_MAX_BYTES).words().is_some());
        assert!(make(VALUE_SIZE_MAX_BYTES + 1, 0).words().is_none());
        assert!(make(100, CODED_SIZE_MAX_BYTES + 1).words().is_none());
        assert_eq!(make(300_000, 0).body(Encoding::Identity).len(), 300_000);
    }

    #[test]
    fn hostile_headers_are_implausible_and_never_panic() {
        for seed in 0..10_000u64 {
            let words: [u64; HEADER_WORDS] =
                std::array::from_fn(|n| rapidhash::v3::rapidhash_v3(&(seed * 8 + n as u64).to_le_bytes()));
            let header = RecordHeader::unpack(&words);
            assert!(!header.is_plausible(4096) || header.len_bytes <= 4096);
        }
    }
}
