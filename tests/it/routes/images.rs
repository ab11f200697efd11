//! /api/images, /api/recommendedImage

use crate::routes::{send, send_with};
use crate::support::Server;

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

#[test]
fn images_of_a_shoe_from_its_first_to_its_last_day() {
    let server = Server::start(&["--products", "1"]);
    let mut c = server.connect();
    let missing = c.get("/api/images?shoe_id=3");
    assert_eq!((missing.status, missing.text().as_str()), (404, "This shoe does not exist!"));
    let shoe = r#"{"shoe_id": 3, "img1": "a", "img2": "b", "img3": "c", "img4": "d", "img5": "e", "img6": "f", "vid1": "v"}"#;
    assert_eq!(send(&mut c, "POST", "/api/images", shoe).status, 201);
    assert_eq!(send_with(&mut c, "POST", "/api/images", FORM, "shoe_id=2&img1=x%20y").status, 201);
    let wanted = r#"{"source":"database","data":["a","b","c","d","e"]}"#;
    assert_eq!(c.get("/api/images/?shoe_id=3").text(), wanted);
    assert_eq!(c.get("/api/recommendedImage?shoesArr=3&shoesArr=2").text(), r#"["a","x y"]"#);
    let one = c.get("/api/recommendedImage?shoesArr=3&shoesArr=9");
    assert_eq!((one.status, one.text().as_str()), (200, "At least one of the shoes does not exist!"));
    let reply = send_with(&mut c, "PUT", "/api/images", FORM, "shoe_id=3&img2=B");
    assert_eq!((reply.status, reply.text().as_str()), (200, "successfully updated"));
    assert_eq!(c.get("/api/images?shoe_id=3").text(), wanted.replace("\"b\"", "\"B\""));
    let reply = send(&mut c, "DELETE", "/api/images", r#"{"shoe_id": "3"}"#);
    assert_eq!((reply.status, reply.text().as_str()), (200, "shoe 3 deleted successfully"));
    for method in ["PUT", "DELETE"] {
        let reply = send(&mut c, method, "/api/images", r#"{"shoe_id": 3}"#);
        assert_eq!((reply.status, reply.text().as_str()), (404, "This shoe does not exist!"), "{method}");
    }
    for bad in [
        "",
        "{}",
        "[]",
        r#"{"shoe_id": "x"}"#,
        r#"{"shoe_id": 1, "img1": 5}"#,
        r#"{"shoe_id": 1, "img1": "\u0000"}"#,
    ] {
        assert_eq!(send(&mut c, "POST", "/api/images", bad).status, 422, "{bad}");
    }
    assert_eq!(c.get("/api/images?shoe_id=x").status, 400);
}
