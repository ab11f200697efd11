//! Pictures of the demonstration catalogue, drawn from their name: no file, no internet.
//! Runs in: worker.

use may_minihttp::{Request, Response};

use crate::api::problem::Problem;
use crate::api::{reply, Site};

/// `GET /pictures/STYLE-NUMBER.svg?w=WIDTH`
pub fn show(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>, name: &str) {
    let Some((style, number)) = parse(name) else { return Problem::no_picture().write(site, req, rsp) };
    let width = form_urlencoded::parse(req.query().as_bytes())
        .find(|(key, _)| key == "w")
        .and_then(|(_, value)| value.parse::<u32>().ok())
        .map_or(600, |w| w.clamp(16, 4096));
    rsp.header("Content-Type: image/svg+xml").header("Cache-Control: public, max-age=31536000, immutable");
    reply::write_cors(site, req, rsp);
    rsp.body_vec(draw(style, number, width).into_bytes());
}

/// `17-2.svg` → style 17, picture 2.
fn parse(name: &str) -> Option<(u64, u64)> {
    let (style, number) = name.strip_suffix(".svg")?.split_once('-')?;
    Some((style.parse().ok()?, number.parse().ok()?))
}

/// A garment of simple shapes: colours from the style, pose from the picture's number.
fn draw(style: u64, number: u64, width: u32) -> String {
    let hash = rapidhash::v3::rapidhash_v3(&style.to_le_bytes());
    let hue = hash % 360;
    let accent = (hue + 40 + (hash >> 9) % 280) % 360;
    let height = width * 5 / 4;
    let tilt = [0i64, -8, 8, 4, -4][(number % 5) as usize];
    let garment = match (hash >> 20) % 3 {
        0 => "M60 60 L100 40 Q120 60 140 40 L180 60 L200 110 L170 120 L165 250 L75 250 L70 120 L40 110 Z",
        1 => "M75 50 L165 50 L185 260 L135 260 L120 130 L105 260 L55 260 Z",
        _ => "M40 190 Q60 130 110 150 L150 180 Q200 190 205 220 L205 240 L40 240 Z",
    };
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 240 300\" \
         role=\"img\" aria-label=\"Style {style}, picture {number}\">\
         <rect width=\"240\" height=\"300\" fill=\"hsl({hue} 30% 92%)\"/>\
         <circle cx=\"{cx}\" cy=\"{cy}\" r=\"70\" fill=\"hsl({accent} 45% 82%)\"/>\
         <g transform=\"rotate({tilt} 120 150)\"><path d=\"{garment}\" fill=\"hsl({hue} 45% 45%)\"/>\
         <path d=\"M90 140 H150 M90 160 H150\" stroke=\"hsl({accent} 60% 70%)\" stroke-width=\"6\"/></g>\
         <text x=\"120\" y=\"288\" font-family=\"sans-serif\" font-size=\"11\" text-anchor=\"middle\" \
         fill=\"hsl({hue} 20% 35%)\">style {style} · {number}</text></svg>",
        cx = 70 + (hash >> 30) % 100,
        cy = 80 + (hash >> 40) % 120,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_style_and_number() {
        assert_eq!(parse("17-2.svg"), Some((17, 2)));
        for name in ["17.svg", "17-2.png", "-2.svg", "a-b.svg", "17-2-3.svg"] {
            assert_eq!(parse(name), None, "{name}");
        }
    }

    #[test]
    fn the_same_name_is_the_same_picture() {
        assert_eq!(draw(17, 2, 300), draw(17, 2, 300));
        assert_ne!(draw(17, 2, 300), draw(18, 2, 300));
    }
}
