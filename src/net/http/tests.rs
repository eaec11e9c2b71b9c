//! The client against a server that sends what each test scripts, byte for byte.

use super::*;
use crate::net::http::response::MAX_BODY;
use async_std::task::block_on;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{channel, Receiver};

const PATIENCE: Duration = Duration::from_secs(30);
const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// One connection of an API: responses to its requests, in order, then the end.
type Script = Vec<Vec<u8>>;

/// Returns a client, and the channel on which requests arrive with the number of their connection.
fn api(scripts: Vec<Script>) -> (ApiClient, Receiver<(usize, String)>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, heard) = channel();
    std::thread::spawn(move || {
        for (number, script) in scripts.into_iter().enumerate() {
            let (stream, _) = listener.accept().unwrap();
            let tell = tell.clone();
            std::thread::spawn(move || {
                let mut requests = BufReader::new(stream.try_clone().unwrap());
                let mut stream = stream;
                for answer in script {
                    match read_request(&mut requests) {
                        Some(request) => drop(tell.send((number, request))),
                        None => return,
                    }
                    let _ = stream.write_all(&answer);
                }
            });
        }
    });
    (ApiClient::new(false, "127.0.0.1", port).unwrap(), heard)
}

fn read_request(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        if stream.read_line(&mut request).unwrap() == 0 {
            return None;
        }
    }
    let length = request
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    Some(request + std::str::from_utf8(&body).unwrap())
}

fn get(client: &ApiClient) -> Result<Vec<u8>, ApiError> {
    let request = ApiRequest::json("/a?b", &[], None);
    block_on(client.send(&request, PATIENCE))
}

/// Returns the result of one response.
fn said(answer: impl AsRef<[u8]>) -> Result<Vec<u8>, ApiError> {
    get(&api(vec![vec![answer.as_ref().to_vec()]]).0)
}

fn body(answer: &str) -> String {
    String::from_utf8(said(answer).unwrap()).unwrap()
}

fn error(answer: impl AsRef<[u8]>) -> String {
    said(answer).unwrap_err().to_string()
}

fn hello(times: usize) -> Script {
    vec![HELLO.into(); times]
}

#[test]
fn a_request_is_written_byte_for_byte() {
    let (client, heard) = api(vec![hello(2)]);
    let port = client.port;
    let common = format!(
        "Host: 127.0.0.1:{port}\r\nUser-Agent: gt/{}\r\nAccept: application/json\r\n",
        env!("CARGO_PKG_VERSION")
    );
    get(&client).unwrap();
    let request = ApiRequest::json("/", &[("Request-Id", "1f")], Some(b"{}"));
    assert_eq!(block_on(client.send(&request, PATIENCE)).unwrap(), b"hello");
    let get = format!("GET /a?b HTTP/1.1\r\n{common}\r\n");
    let post = format!(
        "POST / HTTP/1.1\r\n{common}Request-Id: 1f\r\nContent-Type: application/json\r\n\
         Content-Length: 2\r\n\r\n{{}}"
    );
    assert_eq!(heard.recv().unwrap().1, get);
    assert_eq!(heard.recv().unwrap().1, post);
}

#[test]
fn bodies_come_by_length_in_chunks_or_up_to_the_end() {
    for (head, rest) in [
        ("Content-Length: 5", "hello"),
        ("content-length:5\r\nContent-Length: 5", "hello"),
        ("Transfer-Encoding: Chunked", "5\r\nhello\r\n0\r\n\r\n"),
        (
            "Transfer-Encoding: chunked",
            "1;a=b\r\nh\r\n04 \r\nello\r\n0\r\nA: b\r\nC: d\r\n\r\n",
        ),
        ("Connection: close", "hello"),
    ] {
        assert_eq!(
            body(&format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{rest}")),
            "hello"
        );
    }
    assert_eq!(body("HTTP/1.0 200\r\n\r\nhello"), "hello");
}

#[test]
fn a_response_without_content_ends_with_its_head() {
    let e = said("HTTP/1.1 204 No Content\r\n\r\n").unwrap_err();
    assert!(matches!(e, ApiError::Status(204)), "{e}");
}

#[test]
fn a_response_may_come_byte_by_byte_and_behind_interim_responses() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let answer = "HTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\
             Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n";
        for byte in answer.bytes() {
            stream.write_all(&[byte]).unwrap();
        }
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let client = ApiClient::new(false, "127.0.0.1", port).unwrap();
    assert_eq!(get(&client).unwrap(), b"hello");
    assert_eq!(client.idle.len(), 1);
}

#[test]
fn a_status_other_than_200_is_an_error_and_keeps_the_connection() {
    let answer = "HTTP/1.1 404 No\r\nContent-Length: 5\r\n\r\nhello";
    let (client, _) = api(vec![vec![answer.into(), HELLO.into()]]);
    let e = get(&client).unwrap_err();
    assert!(matches!(e, ApiError::Status(404)), "{e}");
    assert_eq!(client.idle.len(), 1);
    assert_eq!(get(&client).unwrap(), b"hello");
}

#[test]
fn a_connection_serves_many_requests() {
    let (client, heard) = api(vec![hello(3)]);
    for _ in 0..3 {
        assert_eq!(get(&client).unwrap(), b"hello");
        assert_eq!(heard.recv().unwrap().0, 0);
    }
}

#[test]
fn a_connection_that_ends_or_brings_surplus_bytes_is_not_kept() {
    for answer in [
        "HTTP/1.1 200 OK\r\nConnection: a, Close\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello!",
        "HTTP/1.1 200 OK\r\n\r\nhello",
    ] {
        let (client, _) = api(vec![vec![answer.into()]]);
        assert_eq!(get(&client).unwrap(), b"hello");
        assert_eq!(client.idle.len(), 0, "{answer}");
    }
}

#[test]
fn a_request_on_a_dead_kept_connection_is_repeated_on_a_new_one() {
    let (client, heard) = api(vec![hello(1), hello(1)]);
    assert_eq!(get(&client).unwrap(), b"hello");
    assert_eq!(client.idle.len(), 1);
    assert_eq!(get(&client).unwrap(), b"hello");
    let (numbers, _): (Vec<usize>, Vec<String>) = heard.try_iter().unzip();
    assert_eq!(numbers, [0, 1]);
}

#[test]
fn a_request_on_a_new_connection_is_not_repeated() {
    let (client, _) = api(vec![vec![Vec::new()], hello(1)]);
    assert!(matches!(
        get(&client).unwrap_err(),
        ApiError::NoResponse(None)
    ));
}

#[test]
fn four_connections_are_kept_and_no_more() {
    let (client, _) = api(vec![hello(1); 6]);
    block_on(async {
        let conns = [(); 6].map(|()| client.connect(PATIENCE));
        for conn in conns {
            client.idle.put(conn.await.unwrap());
        }
    });
    assert_eq!(client.idle.len(), idle::MAX_IDLE);
}

#[test]
fn a_truncated_response_is_an_error() {
    for answer in [
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
    ] {
        assert_eq!(error(answer), "the answer is cut short", "{answer}");
    }
}

#[test]
fn a_malformed_response_is_an_error() {
    for (answer, why) in [
        ("SSH-2.0-x\r\n\r\n", "this is not HTTP"),
        ("HTTP/1.1 101 Up\r\n\r\n", "switches protocols"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "coding is unknown",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
            "not a number",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "two lengths",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
            "chunks are malformed",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nhello",
            "chunks are malformed",
        ),
    ] {
        let e = error(answer);
        assert!(e.contains(why), "{answer}: {e}");
    }
}

#[test]
fn a_response_of_64_kib_is_accepted_and_a_larger_one_is_an_error() {
    let chunked = |n: usize| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut answer = head.as_bytes().to_vec();
        for piece in vec![b'a'; n].chunks(1000) {
            answer.extend(format!("{:x}\r\n", piece.len()).bytes());
            answer.extend(piece);
            answer.extend(b"\r\n");
        }
        answer.extend(b"0\r\n\r\n");
        answer
    };
    let with = |head: &str, n: usize| {
        let mut answer = format!("HTTP/1.1 200 OK\r\n{head}\r\n").into_bytes();
        answer.resize(answer.len() + n, b'a');
        answer
    };
    let length = |n: usize| with(&format!("Content-Length: {n}\r\n"), n);
    let to_end = |n: usize| with("", n);
    for answer in [chunked(MAX_BODY), length(MAX_BODY), to_end(MAX_BODY)] {
        assert_eq!(said(answer).unwrap().len(), MAX_BODY);
    }
    let huge = with("Content-Length: 99999999999999999999999\r\n", 0);
    for answer in [
        chunked(MAX_BODY + 1),
        length(MAX_BODY + 1),
        to_end(MAX_BODY + 1),
        huge,
    ] {
        assert_eq!(error(answer), "the answer is larger than 64 KiB");
    }
    let endless = vec![b'a'; 1 << 20];
    let head = [b"HTTP/1.1 200 OK\r\nA: ", &endless[..]].concat();
    assert_eq!(error(head), "its head is too long");
    let trailers = [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: ",
        &endless[..],
    ]
    .concat();
    assert_eq!(error(trailers), "its trailers are too long");
}

#[test]
fn limits_apply_even_if_the_end_came_with_the_same_read() {
    // Less than one read brings.
    let long = "a".repeat(20_000);
    let head = format!("HTTP/1.1 200 OK\r\nA: {long}\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(error(head), "its head is too long");
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let trailers = format!("{chunks}0\r\nA: {long}\r\n\r\n");
    assert_eq!(error(trailers), "its trailers are too long");
    let line = format!("{chunks}1;{}\r\na\r\n0\r\n\r\n", &long[..2000]);
    assert_eq!(error(line), "its chunks are malformed");
}

#[test]
fn a_request_to_a_silent_api_times_out() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let client = ApiClient::new(false, "127.0.0.1", listener.local_addr().unwrap().port()).unwrap();
    let request = ApiRequest::json("/", &[], None);
    let short = Duration::from_millis(20);
    let e = block_on(client.send(&request, short)).unwrap_err();
    assert_eq!(e.to_string(), "no answer within 20ms");
}

#[test]
fn the_host_line_names_the_host_as_a_url_would() {
    for (host, port, line) in [
        ("h", 80, "Host: h\r\n"),
        ("h", 443, "Host: h:443\r\n"),
        ("::1", 80, "Host: [::1]\r\n"),
        ("fe80::1%eth0", 8080, "Host: [fe80::1]:8080\r\n"),
    ] {
        let client = ApiClient::new(false, host, port).unwrap();
        let bytes = client.encode(&ApiRequest::json("/", &[], None));
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains(line), "{text}");
    }
}
