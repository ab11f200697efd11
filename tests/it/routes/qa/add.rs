//! POST /qa/questions, POST /qa/questions/:id/answers

use crate::routes::send;
use crate::support::Server;

const BODY: &str = r#"{"body": "Does it?", "name": "bo", "email": "b@example.com", "product_id": "7"}"#;

#[test]
fn a_question_and_its_answer_are_in_the_next_answer() {
    let server = Server::start(&["--products", "20", "--workers", "2"]);
    server.database().batch_execute("delete from questions where product_id = 7").unwrap();
    let mut connection = server.connect();
    let list = |server: &Server| server.get("/qa/questions?product_id=7").json()["results"].clone();
    (0..4).for_each(|_| assert_eq!(list(&server), serde_json::json!([])));
    let reply = send(&mut connection, "POST", "/qa/questions", BODY);
    assert_eq!((reply.status, reply.text().as_str()), (201, "Created"));
    for _ in 0..4 {
        let question = list(&server)[0].clone();
        assert_eq!((&question["question_body"], &question["asker_name"]), (&"Does it?".into(), &"bo".into()));
        assert_eq!((&question["answers"], &question["reported"]), (&serde_json::json!({}), &false.into()));
    }
    let id = list(&server)[0]["question_id"].as_i64().unwrap();
    let path = format!("/qa/questions/{id}/answers");
    (0..4).for_each(|_| assert_eq!(server.get(&path).json()["results"], serde_json::json!([])));
    let answer =
        r#"{"body": "It does.", "name": "cleo", "email": "c@example.com", "photos": ["https://x/1"]}"#;
    assert_eq!(send(&mut connection, "POST", &path, answer).status, 201);
    for _ in 0..4 {
        let answered = server.get(&path).json()["results"][0].clone();
        assert_eq!(answered["photos"][0]["url"], "https://x/1");
        let answers = list(&server)[0]["answers"].as_object().unwrap().clone();
        assert_eq!(answers[&answered["answer_id"].to_string()]["photos"], serde_json::json!(["https://x/1"]));
    }
    let without = r#"{"body": "Yes.", "name": "cleo", "email": "c@example.com", "photos": ""}"#;
    assert_eq!(send(&mut connection, "POST", &format!("/qa/{id}/answers"), without).status, 201);
}

#[test]
fn bad_ones_are_refused_as_they_were() {
    let server = Server::shared();
    let mut connection = server.connect();
    for body in ["", "{}", &BODY.replace("\"7\"", "777777"), &BODY.replace("bo", "")] {
        let reply = send(&mut connection, "POST", "/qa/questions", body);
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (422, "Error: Question body contains invalid entries")
        );
    }
    let reply = send(&mut connection, "POST", "/qa/questions/1/answers", "{}");
    assert_eq!((reply.status, reply.text().as_str()), (422, "Error: Answer body contains invalid entries"));
    for (path, status) in [("/qa/questions/777777777/answers", 404), ("/qa/questions/x/answers", 404)] {
        assert_eq!(send(&mut connection, "POST", path, BODY).status, status, "{path}");
    }
}
