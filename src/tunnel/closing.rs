//! The graceful end of a tunnel (WIRE.md, "Life of a tunnel", 6).

/// How far the goodbye has come. Both ends run the same machine: who has said and heard one
/// close drains, and says close twice when its last stream has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closing {
    /// Nobody has said close.
    Open,
    /// We have, the peer has not answered.
    Said,
    /// Both have; streams run out.
    Draining,
    /// The last word is out, or nobody listens any more.
    Over,
}

/// What has to be done after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClosingStep {
    Nothing,
    /// Send close once.
    SayClose,
    /// Send close twice, then shut the socket.
    Finish,
    /// Send close once, then twice more, and shut the socket.
    SayAndFinish,
    /// The peer has gone: end at once.
    End,
}

impl Closing {
    /// We want to end.
    pub fn ask(&mut self) -> ClosingStep {
        match self {
            Self::Open => {
                *self = Self::Said;
                ClosingStep::SayClose
            }
            _ => ClosingStep::Nothing,
        }
    }

    /// The peer has said close, while `streams` were running.
    pub fn heard(&mut self, streams: usize) -> ClosingStep {
        let idle = streams == 0;
        match *self {
            Self::Open if idle => self.over(ClosingStep::SayAndFinish),
            Self::Open => {
                *self = Self::Draining;
                ClosingStep::SayClose
            }
            Self::Said if idle => self.over(ClosingStep::Finish),
            Self::Said => {
                *self = Self::Draining;
                ClosingStep::Nothing
            }
            // Close received while already closing ends it at once.
            Self::Draining | Self::Over => self.over(ClosingStep::End),
        }
    }

    /// The last stream has ended.
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
    fn the_side_that_is_asked_answers_drains_and_says_close_twice() {
        let mut closing = Closing::Open;
        assert_eq!(closing.heard(2), ClosingStep::SayClose);
        assert_eq!(closing.idle(), ClosingStep::Finish);
        assert_eq!(closing, Closing::Over);
    }

    #[test]
    fn the_side_that_asks_drains_too_and_ends_on_the_second_close() {
        let mut closing = Closing::Open;
        assert_eq!(closing.ask(), ClosingStep::SayClose);
        assert_eq!(closing.ask(), ClosingStep::Nothing, "close is said once");
        assert_eq!(closing.heard(1), ClosingStep::Nothing, "this is the answer");
        assert_eq!(closing.heard(1), ClosingStep::End);
    }

    #[test]
    fn both_asking_at_once_ends_when_both_are_idle() {
        let mut closing = Closing::Open;
        assert_eq!(closing.ask(), ClosingStep::SayClose);
        assert_eq!(
            closing.idle(),
            ClosingStep::Nothing,
            "the peer may still send tasks"
        );
        assert_eq!(closing.heard(0), ClosingStep::Finish);
    }

    #[test]
    fn an_idle_tunnel_ends_with_the_answer() {
        assert_eq!(Closing::Open.heard(0), ClosingStep::SayAndFinish);
    }
}
