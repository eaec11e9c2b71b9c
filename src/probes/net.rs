//! What gt asks over HTTP for itself.

use super::{Pace, Source};
use crate::net::http::answer::{read, Answer, MAX_BODY};
use futures_lite::future::block_on;
use std::task::Poll;

/// An answer to a request of ours.
pub fn http_answer(data: &[u8]) {
    let whole = answer(data, Pace::Whole);
    for pace in Pace::split(data) {
        assert_eq!(answer(data, pace), whole, "{pace:?}");
    }
    if let Some(Answer { status, body }) = whole {
        assert!((200..1000).contains(&status));
        assert!(body.len() <= MAX_BODY && body.len() <= data.len());
    }
}

fn answer(data: &[u8], pace: Pace) -> Option<Answer> {
    let mut source = Source::new(data, pace);
    let reading = read(|_, buffer| Poll::Ready(Ok(source.take(buffer))));
    block_on(reading).ok().map(|(answer, _)| answer)
}
