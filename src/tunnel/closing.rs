//! The graceful end of a tunnel (docs/gt1.md, "The life of a tunnel", 6).

/// The state of the closing handshake. Both ends run the same machine: an end that has sent and
/// received one close drains, and sends close twice when its last stream has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closing {
    /// Neither end has sent close.
    Open,
    /// This end has sent close; the peer has not answered.
    Sent,
    /// Both ends have sent close; the streams that are left finish.
    Draining,
    /// The last close is sent, or the connection is gone.
    Over,
}

/// What the tunnel has to do after a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClosingStep {
    Nothing,
    /// Send close once.
    SendClose,
    /// Send close twice, then shut the socket.
    Finish,
    /// Send close once, then twice more, and shut the socket.
    SendAndFinish,
    /// The peer has gone: end at once.
    End,
}

impl Closing {
    /// Starts the graceful end from this side.
    pub fn begin(&mut self) -> ClosingStep {
        match self {
            Self::Open => {
                *self = Self::Sent;
                ClosingStep::SendClose
            }
            _ => ClosingStep::Nothing,
        }
    }

    /// Handles a close from the peer while `streams` streams are open.
    pub fn received(&mut self, streams: usize) -> ClosingStep {
        let idle = streams == 0;
        match *self {
            Self::Open if idle => self.over(ClosingStep::SendAndFinish),
            Self::Open => {
                *self = Self::Draining;
                ClosingStep::SendClose
            }
            Self::Sent if idle => self.over(ClosingStep::Finish),
            Self::Sent => {
                *self = Self::Draining;
                ClosingStep::Nothing
            }
            // A close during draining ends the tunnel at once.
            Self::Draining | Self::Over => self.over(ClosingStep::End),
        }
    }

    /// Handles the end of the last stream.
    pub fn idle(&mut self) -> ClosingStep {
        match self {
            Self::Draining => self.over(ClosingStep::Finish),
            _ => ClosingStep::Nothing,
        }
    }

    fn over(&mut self, step: ClosingStep) -> ClosingStep {
        *self = Self::Over;
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_passive_side_answers_drains_and_sends_close_twice() {
        let mut closing = Closing::Open;
        assert_eq!(closing.received(2), ClosingStep::SendClose);
        assert_eq!(closing.idle(), ClosingStep::Finish);
        assert_eq!(closing, Closing::Over);
    }

    #[test]
    fn the_active_side_drains_and_ends_on_the_second_close() {
        let mut closing = Closing::Open;
        assert_eq!(closing.begin(), ClosingStep::SendClose);
        assert_eq!(closing.begin(), ClosingStep::Nothing, "close is said once");
        assert_eq!(
            closing.received(1),
            ClosingStep::Nothing,
            "this is the answer"
        );
        assert_eq!(closing.received(1), ClosingStep::End);
    }

    #[test]
    fn a_simultaneous_close_ends_when_both_sides_are_idle() {
        let mut closing = Closing::Open;
        assert_eq!(closing.begin(), ClosingStep::SendClose);
        assert_eq!(
            closing.idle(),
            ClosingStep::Nothing,
            "the peer may still send streams"
        );
        assert_eq!(closing.received(0), ClosingStep::Finish);
    }

    #[test]
    fn an_idle_tunnel_ends_with_the_answer_to_close() {
        assert_eq!(Closing::Open.received(0), ClosingStep::SendAndFinish);
    }
}
