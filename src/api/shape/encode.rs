//! Bodies compressed: gzip, br and zstd of what is kept, and gzip piece by piece of what is streamed.
//! Runs in: worker, on a lane's stack.

use std::io;

use brotli::enc::BrotliEncoderParams;
use flate2::{Compress, Compression, FlushCompress};
use libdeflater::{CompressionLvl, Compressor};

use crate::limits::{CODED_SIZE_MIN_BYTES, GZIP_SIZE_MAX_BYTES, GZIP_SIZE_MIN_BYTES};

/// Level 1 of libdeflate: three quarters of what the highest level saves, at a tenth of its time.
const GZIP_LEVEL: i32 = 1;
/// Qualities of br for small bodies and large ones, and level of zstd: the next ones cost several times as much and save a few
/// per cent (docs/measurements.md).
const BR_QUALITY_SMALL: i32 = 3;
const BR_QUALITY_LARGE: i32 = 4;
const BR_LARGE_SIZE_BYTES: usize = 8 * 1024;
const ZSTD_LEVEL: i32 = 3;
/// Window of br, as a power of two: what is kept fits into it.
const BR_WINDOW_BITS: i32 = 16;
const _: () = assert!(crate::limits::VALUE_SIZE_MAX_BYTES <= 1 << BR_WINDOW_BITS);

/// The compressors of one lane.
pub struct Encoder {
    gzip: Compressor,
    zstd: zstd::bulk::Compressor<'static>,
    /// For bodies that are compressed piece by piece; made when first needed.
    deflater: Option<Compress>,
}

impl Encoder {
    pub fn new() -> Encoder {
        let level = CompressionLvl::new(GZIP_LEVEL).expect("a level of libdeflate");
        let zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL).expect("a level of zstd");
        Encoder { gzip: Compressor::new(level), zstd, deflater: None }
    }

    /// The gzip of a body, or nothing where it doesn't pay.
    pub fn gzip(&mut self, json: &[u8]) -> Vec<u8> {
        if !(GZIP_SIZE_MIN_BYTES..=GZIP_SIZE_MAX_BYTES).contains(&json.len()) {
            return Vec::new();
        }
        let mut out = vec![0; self.gzip.gzip_compress_bound(json.len())];
        let len = self.gzip.gzip_compress(json, &mut out).unwrap_or(0);
        out.truncate(len);
        if_it_pays(out, json)
    }

    /// The br of a body, or nothing where it doesn't pay.
    pub fn br(&mut self, json: &[u8]) -> Vec<u8> {
        if json.len() < CODED_SIZE_MIN_BYTES {
            return Vec::new();
        }
        let quality = if json.len() < BR_LARGE_SIZE_BYTES { BR_QUALITY_SMALL } else { BR_QUALITY_LARGE };
        let params = BrotliEncoderParams {
            quality,
            lgwin: BR_WINDOW_BITS,
            size_hint: json.len(),
            mode: brotli::enc::backward_references::BrotliEncoderMode::BROTLI_MODE_TEXT,
            ..BrotliEncoderParams::default()
        };
        let mut out = Vec::with_capacity(json.len() / 2);
        match brotli::BrotliCompress(&mut &json[..], &mut out, &params) {
            Ok(_) => if_it_pays(out, json),
            Err(_) => Vec::new(),
        }
    }

    /// The zstd of a body, or nothing where it doesn't pay.
    pub fn zstd(&mut self, json: &[u8]) -> Vec<u8> {
        if json.len() < CODED_SIZE_MIN_BYTES {
            return Vec::new();
        }
        self.zstd.compress(json).map_or_else(|_| Vec::new(), |out| if_it_pays(out, json))
    }

    /// `bytes` as whole blocks of raw DEFLATE that refer to nothing before them and don't end the stream, so that
    /// pieces compressed by different lanes follow one another (RFC 1951, 3.2.3 and 3.2.4).
    pub fn deflate_piece(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let deflater = self.deflater.get_or_insert_with(|| Compress::new(Compression::fast(), false));
        deflater.reset();
        let mut out = Vec::with_capacity(bytes.len() / 2 + 64);
        loop {
            let at = deflater.total_in() as usize;
            deflater.compress_vec(&bytes[at..], &mut out, FlushCompress::Sync)?;
            // Room left over says that the flush is complete.
            if deflater.total_in() as usize == bytes.len() && out.len() < out.capacity() {
                return Ok(out);
            }
            out.reserve(bytes.len() / 4 + 64);
        }
    }
}

impl Default for Encoder {
    fn default() -> Encoder {
        Encoder::new()
    }
}

/// `out` if it is one, and smaller than the JSON.
fn if_it_pays(out: Vec<u8>, json: &[u8]) -> Vec<u8> {
    if out.len() < json.len() {
        out
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unpacked(encoder: &mut Encoder, json: &[u8]) -> [Option<Vec<u8>>; 3] {
        let gzip = encoder.gzip(json);
        let br = encoder.br(json);
        let zstd = encoder.zstd(json);
        let mut plain = vec![0; json.len()];
        let gzip = (!gzip.is_empty()).then(|| {
            let len = libdeflater::Decompressor::new().gzip_decompress(&gzip, &mut plain).unwrap();
            plain[..len].to_vec()
        });
        let br = (!br.is_empty()).then(|| {
            let mut out = Vec::new();
            brotli::BrotliDecompress(&mut &br[..], &mut out).unwrap();
            out
        });
        let zstd = (!zstd.is_empty()).then(|| zstd::bulk::decompress(&zstd, json.len()).unwrap());
        [gzip, br, zstd]
    }

    proptest! {
        #[test]
        fn every_encoding_unpacks_to_the_body(words in proptest::collection::vec("[a-e]{1,6}", 0..9000)) {
            let json = words.join(" ").into_bytes();
            let mut encoder = Encoder::new();
            for (unpacked, min) in unpacked(&mut encoder, &json).into_iter().zip([GZIP_SIZE_MIN_BYTES, CODED_SIZE_MIN_BYTES, CODED_SIZE_MIN_BYTES]) {
                prop_assert_eq!(unpacked.is_some(), json.len() >= min);
                prop_assert!(unpacked.is_none_or(|unpacked| unpacked == json));
            }
        }
    }

    #[test]
    fn what_does_not_shrink_has_no_variants() {
        let mut dice = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 56) as u8
        })
        .take(5000)
        .collect();
        assert_eq!(unpacked(&mut Encoder::new(), &noise), [None, None, None]);
    }
}
