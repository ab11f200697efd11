//! Lists too long to be kept: fetched, shaped, compressed and sent piece by piece, as fast as the client takes them.
//! Runs in: worker; the work on a lane's stack.

use std::io;
use std::sync::Arc;

use flate2::Crc;
use may_minihttp::BodySource;

use crate::api::fetch::{FetchError, Fetcher};
use crate::api::read::ListStart;
use crate::api::shape::Shaper;
use crate::db::trace;
use crate::limits::LIST_CACHED_COUNT_MAX;

/// Header of a gzip member without name, time or extras (RFC 1952, 2.3).
const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// An empty block that ends a DEFLATE stream.
const DEFLATE_END: [u8; 2] = [3, 0];

/// A list under way. Pieces follow one another by id, so that no product comes twice or is left out because others
/// come and go meanwhile.
pub struct ListSource {
    fetcher: Arc<Fetcher>,
    /// Products still asked for.
    left: i64,
    next: ListStart,
    gzip: bool,
    crc: Crc,
    is_first: bool,
    /// The first piece, made before the answer begins: until then an error has a status of its own.
    ready: Option<Piece>,
}

/// Bytes to be sent, and the product behind which the next piece begins; None after the last one.
struct Piece {
    bytes: Vec<u8>,
    next: Option<i64>,
}

impl ListSource {
    /// Opens the list of `count` products after `offset`.
    ///
    /// # Errors
    /// Why its first piece can't be had.
    pub fn open(
        fetcher: Arc<Fetcher>,
        offset: i64,
        count: i64,
        gzip: bool,
    ) -> Result<ListSource, FetchError> {
        let mut source = ListSource {
            fetcher,
            left: count,
            next: ListStart::Offset(offset),
            gzip,
            crc: Crc::new(),
            is_first: true,
            ready: None,
        };
        source.ready = Some(source.make()?);
        Ok(source)
    }

    /// Makes the next piece on a lane.
    fn make(&mut self) -> Result<Piece, FetchError> {
        let (next, left, gzip, is_first) = (self.next, self.left, self.gzip, self.is_first);
        let mut crc = std::mem::replace(&mut self.crc, Crc::new());
        let made = self.fetcher.run(move |fetcher, shaper| {
            let piece = read_piece(fetcher, shaper, next, left).and_then(|(json, next)| {
                let json = frame(json, is_first, next.is_none());
                let bytes =
                    if gzip { compress(shaper, &mut crc, &json, is_first, next.is_none())? } else { json };
                Ok(Piece { bytes, next })
            });
            (piece, crc)
        });
        let (piece, crc) = made.ok_or_else(FetchError::too_busy)?;
        self.crc = crc;
        self.is_first = false;
        self.left -= LIST_CACHED_COUNT_MAX;
        piece
    }
}

/// The products of a piece, and the one behind which the next goes on.
fn read_piece(
    fetcher: &Fetcher,
    shaper: &Shaper,
    start: ListStart,
    left: i64,
) -> Result<(Vec<u8>, Option<i64>), FetchError> {
    let count = left.min(LIST_CACHED_COUNT_MAX);
    let page = fetcher.reader().list_piece(start, count).map_err(|e| FetchError::from(&e))?;
    let next = page.rows.last().filter(|_| page.more && left > count).map(|last| last.id);
    Ok((shaper.dialect().list_items(&page.rows), next))
}

/// Brackets around the list, commas between its pieces.
fn frame(items: Vec<u8>, is_first: bool, is_last: bool) -> Vec<u8> {
    let mut json = Vec::with_capacity(items.len() + 2);
    if is_first {
        json.push(b'[');
    } else if !items.is_empty() {
        json.push(b',');
    }
    json.extend_from_slice(&items);
    if is_last {
        json.push(b']');
    }
    json
}

fn compress(
    shaper: &mut Shaper,
    crc: &mut Crc,
    json: &[u8],
    is_first: bool,
    is_last: bool,
) -> Result<Vec<u8>, FetchError> {
    let mut bytes = if is_first { GZIP_HEAD.to_vec() } else { Vec::new() };
    crc.update(json);
    let deflated =
        shaper.encoder().deflate_piece(json).map_err(|e| FetchError::Failed(format!("compressing: {e}")))?;
    bytes.extend_from_slice(&deflated);
    if is_last {
        bytes.extend_from_slice(&DEFLATE_END);
        bytes.extend_from_slice(&crc.sum().to_le_bytes());
        bytes.extend_from_slice(&crc.amount().to_le_bytes());
    }
    Ok(bytes)
}

impl BodySource for ListSource {
    fn size_bytes(&self) -> Option<u64> {
        None
    }

    fn next_piece(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let piece = match self.ready.take() {
            Some(piece) => piece,
            None => {
                let made = self.make();
                // The request's own notes are taken already; the next one begins without.
                trace::take();
                made.map_err(io::Error::other)?
            }
        };
        *out = piece.bytes;
        match piece.next {
            Some(id) => self.next = ListStart::After(id),
            None => return Ok(false),
        }
        Ok(true)
    }
}

/// The body of an answer to HEAD, for which nothing is made.
pub struct Unmade;

impl BodySource for Unmade {
    fn size_bytes(&self) -> Option<u64> {
        None
    }

    fn next_piece(&mut self, _out: &mut Vec<u8>) -> io::Result<bool> {
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};
    use proptest::prelude::*;
    use std::io::Read;

    #[test]
    fn pieces_join_to_a_list() {
        let join = |pieces: &[&[u8]]| {
            let last = pieces.len() - 1;
            let framed = pieces.iter().enumerate().flat_map(|(n, p)| frame(p.to_vec(), n == 0, n == last));
            String::from_utf8(framed.collect()).unwrap()
        };
        assert_eq!(join(&[b""]), "[]");
        assert_eq!(join(&[b"1,2"]), "[1,2]");
        assert_eq!(join(&[b"1,2", b"3,4", b""]), "[1,2,3,4]");
    }

    proptest! {
        #[test]
        fn pieces_compressed_apart_are_one_gzip_member(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40_000), 1..6),
        ) {
            let config = Config::new(Sources::default()).unwrap();
            let mut lanes = [Shaper::new(&config), Shaper::new(&config)];
            let mut crc = Crc::new();
            let mut bytes = Vec::new();
            for (n, piece) in pieces.iter().enumerate() {
                let shaper = &mut lanes[n % 2];
                bytes.extend(compress(shaper, &mut crc, piece, n == 0, n + 1 == pieces.len()).unwrap());
            }
            let mut plain = Vec::new();
            let mut decoder = flate2::read::GzDecoder::new(&bytes[..]);
            decoder.read_to_end(&mut plain).unwrap();
            prop_assert!(decoder.into_inner().is_empty());
            prop_assert_eq!(plain, pieces.concat());
        }
    }
}
