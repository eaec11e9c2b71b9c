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
pub(super) enum Step {
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
    pub fn ask(&mut self) -> Step {
        match self {
            Self::Open => {
                *self = Self::Said;
                Step::SayClose
            }
            _ => Step::Nothing,
        }
    }

    /// The peer has said close, while `streams` were running.
    pub fn heard(&mut self, streams: usize) -> Step {
        let idle = streams == 0;
        match *self {
            Self::Open if idle => self.over(Step::SayAndFinish),
            Self::Open => {
                *self = Self::Draining;
                Step::SayClose
            }
            Self::Said if idle => self.over(Step::Finish),
            Self::Said => {
                *self = Self::Draining;
                Step::Nothing
            }
            // Close received while already closing ends it at once.
            Self::Draining | Self::Over => self.over(Step::End),
        }
    }

    /// The last stream has ended.
    pub fn idle(&mut self) -> Step {
        match self {
            Self::Draining => self.over(Step::Finish),
            _ => Step::Nothing,
        }
    }

    fn over(&mut self, step: Step) -> Step {
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
        assert_eq!(closing.heard(2), Step::SayClose);
        assert_eq!(closing.idle(), Step::Finish);
        assert_eq!(closing, Closing::Over);
    }

    #[test]
    fn the_side_that_asks_drains_too_and_ends_on_the_second_close() {
        let mut closing = Closing::Open;
        assert_eq!(closing.ask(), Step::SayClose);
        assert_eq!(closing.ask(), Step::Nothing, "close is said once");
        assert_eq!(closing.heard(1), Step::Nothing, "this is the answer");
        assert_eq!(closing.heard(1), Step::End);
    }

    #[test]
    fn both_asking_at_once_ends_when_both_are_idle() {
        let mut closing = Closing::Open;
        assert_eq!(closing.ask(), Step::SayClose);
        assert_eq!(
            closing.idle(),
            Step::Nothing,
            "the peer may still send tasks"
        );
        assert_eq!(closing.heard(0), Step::Finish);
    }

    #[test]
    fn an_idle_tunnel_ends_with_the_answer() {
        assert_eq!(Closing::Open.heard(0), Step::SayAndFinish);
    }
}
