//! Session descriptions (RFC 8866), as far as data channels need them (RFC 8841). Parsing and
//! writing only; [`super::peer`] applies the values.

use super::identity::DtlsRole;
use std::fmt::Write;

/// Maximum number of candidates of one description that are used.
const MAX_CANDIDATES: usize = 32;
/// Maximum number of media sections answered.
const MAX_MEDIA: usize = 16;
/// Maximum length of a token that is repeated in the answer.
const MAX_TOKEN: usize = 256;

/// The attribute of an end that can use QUIC (docs/p2p.md, "QUIC"), and its value. Browsers ignore attributes that they
/// do not know (RFC 8866, section 5.13).
const QUIC: &str = "gt-quic";
const QUIC_VERSION: &str = "1";

/// A parsed description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// ICE user fragment.
    pub ufrag: String,
    /// ICE password.
    pub pwd: String,
    /// SHA-256 fingerprint of the certificate.
    pub fingerprint: String,
    /// The end that starts the DTLS handshake.
    pub setup: Setup,
    /// Largest message that the end accepts, in bytes.
    pub max_message: u32,
    /// Whether the end can use QUIC in place of DTLS and SCTP.
    pub quic: bool,
    /// Addresses of the end, as candidate attributes.
    pub candidates: Vec<String>,
    media: Vec<Media>,
}

/// The end that starts the DTLS handshake (RFC 8842).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    /// Either end.
    ActPass,
    /// The end that has written the description.
    Active,
    /// The other end.
    Passive,
}

/// One media section; the data channels are one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Media {
    /// The kind of the section, the first word of its line.
    kind: String,
    /// The rest of its line behind the port.
    form: String,
    mid: Option<String>,
    is_data: bool,
}

impl Description {
    /// Parses a description. The error is a short reason.
    pub fn parse(sdp: &str) -> Result<Self, &'static str> {
        let mut media: Vec<Media> = Vec::new();
        let (mut ufrag, mut pwd, mut fingerprint) = (None, None, None);
        let mut setup = Setup::ActPass;
        // The default of RFC 8841, section 6.1.
        let mut max_message = 64 * 1024;
        let (mut quic, mut candidates) = (false, Vec::new());
        let mut data = None;
        for line in sdp.lines() {
            let line = line.trim_end();
            if let Some(rest) = line.strip_prefix("m=") {
                if media.len() == MAX_MEDIA || rest.len() > MAX_TOKEN {
                    return Err("too many media");
                }
                let mut words = rest.splitn(3, ' ');
                let (kind, port) = (words.next(), words.next());
                let (Some(kind), Some(port), Some(form)) = (kind, port, words.next()) else {
                    return Err("a malformed m= line");
                };
                let is_data = data.is_none() && kind == "application" && form.contains("SCTP");
                if is_data && port != "0" {
                    data = Some(media.len());
                }
                media.push(Media {
                    kind: kind.to_owned(),
                    form: form.to_owned(),
                    mid: None,
                    is_data: data == Some(media.len()),
                });
                continue;
            }
            let Some(attribute) = line.strip_prefix("a=") else {
                continue;
            };
            let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
            if value.len() > MAX_TOKEN {
                continue;
            }
            // Lines before the first media section apply to all; other sections do not matter.
            let ours = media.last().is_none_or(|media| media.is_data);
            match name {
                "mid" => {
                    if let Some(last) = media.last_mut() {
                        last.mid = Some(value.to_owned());
                    }
                }
                // Bundled media share them.
                "ice-ufrag" if ours || ufrag.is_none() => ufrag = Some(value.to_owned()),
                "ice-pwd" if ours || pwd.is_none() => pwd = Some(value.to_owned()),
                "fingerprint" if ours || fingerprint.is_none() => {
                    if let Some((hash, value)) = value.split_once(' ') {
                        if hash.eq_ignore_ascii_case("sha-256") {
                            fingerprint = Some(value.trim().to_ascii_uppercase());
                        }
                    }
                }
                "setup" if ours => {
                    setup = match value {
                        "active" => Setup::Active,
                        "passive" => Setup::Passive,
                        _ => Setup::ActPass,
                    }
                }
                "max-message-size" if ours => {
                    // 0 means any size.
                    let size = value.parse().unwrap_or(max_message);
                    max_message = if size == 0 { u32::MAX } else { size };
                }
                QUIC if ours => quic = value == QUIC_VERSION,
                "candidate" if ours && candidates.len() < MAX_CANDIDATES => {
                    candidates.push(attribute.to_owned());
                }
                _ => {}
            }
        }
        if data.is_none() {
            return Err("no data channels in it");
        }
        let is_token = |text: &String| {
            (4..=MAX_TOKEN).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        Ok(Self {
            ufrag: ufrag.filter(is_token).ok_or("no ice-ufrag")?,
            pwd: pwd.filter(is_token).ok_or("no ice-pwd")?,
            fingerprint: fingerprint.ok_or("no SHA-256 fingerprint")?,
            setup,
            max_message,
            quic,
            candidates,
            media,
        })
    }

    /// Builds the answer to this offer: data channels, and a rejection of all other media.
    pub fn answer(&self, ours: &LocalDescription, side: DtlsRole) -> String {
        let setup = match side {
            DtlsRole::Client => "active",
            DtlsRole::Server => "passive",
        };
        let ours = LocalDescription {
            quic: ours.quic && self.quic,
            ..*ours
        };
        write(&ours, setup, &self.media)
    }

    /// Returns the DTLS role of this end in its answer to this offer.
    pub fn side_of_answer(&self) -> DtlsRole {
        match self.setup {
            Setup::Active => DtlsRole::Server,
            Setup::ActPass | Setup::Passive => DtlsRole::Client,
        }
    }

    /// Returns the DTLS role of this end if this description answers its offer.
    pub fn side_of_offer(&self) -> DtlsRole {
        match self.setup {
            Setup::Passive => DtlsRole::Client,
            Setup::ActPass | Setup::Active => DtlsRole::Server,
        }
    }
}

/// The values of this end's own description.
pub struct LocalDescription<'a> {
    /// ICE user fragment.
    pub ufrag: &'a str,
    /// ICE password.
    pub pwd: &'a str,
    /// SHA-256 fingerprint of the certificate.
    pub fingerprint: &'a str,
    /// Whether the end can use QUIC. An answer says so only to an offer that does.
    pub quic: bool,
}

/// Builds an offer of data channels.
pub fn offer(ours: &LocalDescription) -> String {
    let media = Media {
        kind: "application".to_owned(),
        form: "UDP/DTLS/SCTP webrtc-datachannel".to_owned(),
        mid: Some("0".to_owned()),
        is_data: true,
    };
    write(ours, "actpass", &[media])
}

fn write(ours: &LocalDescription, setup: &str, media: &[Media]) -> String {
    let mut sdp = String::from("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n");
    // Writing to a String cannot fail.
    if let Some(mid) = media
        .iter()
        .find(|it| it.is_data)
        .and_then(|it| it.mid.as_ref())
    {
        let _ = write!(sdp, "a=group:BUNDLE {mid}\r\n");
    }
    for Media {
        kind,
        form,
        mid,
        is_data,
    } in media
    {
        // Port 9 (discard) is a placeholder, since candidates carry the addresses; 0 rejects the
        // section.
        let port = if *is_data { 9 } else { 0 };
        let _ = write!(sdp, "m={kind} {port} {form}\r\nc=IN IP4 0.0.0.0\r\n");
        if let Some(mid) = mid {
            let _ = write!(sdp, "a=mid:{mid}\r\n");
        }
        if !is_data {
            sdp.push_str("a=inactive\r\n");
            continue;
        }
        let _ = write!(
            sdp,
            "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=ice-options:trickle\r\n\
             a=fingerprint:sha-256 {}\r\na=setup:{setup}\r\n",
            ours.ufrag, ours.pwd, ours.fingerprint
        );
        // The old syntax has the SCTP port in the m= line.
        match form.split_once("DTLS/SCTP ").map(|(_, port)| port) {
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                let _ = write!(sdp, "a=sctpmap:{port} webrtc-datachannel 65535\r\n");
            }
            _ => sdp.push_str("a=sctp-port:5000\r\n"),
        }
        let _ = write!(sdp, "a=max-message-size:{}\r\n", super::MAX_MESSAGE_IN);
        if ours.quic {
            let _ = write!(sdp, "a={QUIC}:{QUIC_VERSION}\r\n");
        }
    }
    sdp
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: LocalDescription = LocalDescription {
        ufrag: "ufra",
        pwd: "pwdpwdpwdpwdpwdpwdpwdpwd",
        fingerprint: "AA:BB",
        quic: true,
    };

    const OFFER: &str = "v=0\r\no=- 46117 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n\
        a=group:BUNDLE 0 1\r\na=msid-semantic: WMS\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:abcd\r\na=ice-pwd:1234567890123456789012\r\n\
        a=setup:actpass\r\na=fingerprint:sha-256 aa:cc\r\n\
        m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\n\
        a=candidate:1 1 udp 2113937151 192.0.2.1 50000 typ host\r\n\
        a=ice-ufrag:abcd\r\na=ice-pwd:1234567890123456789012\r\na=setup:actpass\r\na=mid:1\r\n\
        a=sctp-port:5000\r\na=max-message-size:262144\r\n";

    #[test]
    fn an_offer_is_parsed_and_other_media_are_rejected() {
        let offer = Description::parse(OFFER).unwrap();
        assert_eq!((&*offer.ufrag, &*offer.fingerprint), ("abcd", "AA:CC"));
        assert_eq!(offer.max_message, 262_144);
        assert_eq!(
            offer.candidates,
            ["candidate:1 1 udp 2113937151 192.0.2.1 50000 typ host"]
        );
        assert_eq!(offer.side_of_answer(), DtlsRole::Client);
        let answer = offer.answer(&OURS, DtlsRole::Client);
        assert!(
            answer.contains("m=audio 0 UDP/TLS/RTP/SAVPF 111\r\n"),
            "{answer}"
        );
        assert!(answer.contains("a=group:BUNDLE 1\r\n"), "{answer}");
        let answer = Description::parse(&answer).unwrap();
        assert_eq!(
            (answer.setup, answer.side_of_offer()),
            (Setup::Active, DtlsRole::Server)
        );
        assert_eq!(answer.fingerprint, "AA:BB");
    }

    #[test]
    fn our_own_offer_can_be_answered() {
        let description = Description::parse(&offer(&OURS)).unwrap();
        assert_eq!(description.setup, Setup::ActPass);
        assert_eq!(description.pwd, OURS.pwd);
    }

    #[test]
    fn an_answer_agrees_to_quic_if_the_offer_does() {
        let parsed = |sdp: &str| Description::parse(sdp).unwrap();
        let answered = |offer: &Description, quic: bool| {
            let ours = LocalDescription { quic, ..OURS };
            parsed(&offer.answer(&ours, DtlsRole::Client)).quic
        };
        let [with, without] =
            [true, false].map(|quic| parsed(&offer(&LocalDescription { quic, ..OURS })));
        assert!(with.quic && answered(&with, true) && !answered(&with, false));
        assert!(!without.quic && !answered(&without, true));
        assert!(!answered(&parsed(OFFER), true), "a browser");
        for other in ["a=gt-quic:2\r\n", "a=gt-quic\r\n", "a=gt-quic:\r\n"] {
            assert!(!parsed(&format!("{OFFER}{other}")).quic, "{other}");
        }
        let elsewhere = OFFER.replace("a=msid", "m=audio 9 X 1\r\na=gt-quic:1\r\na=msid");
        assert!(!parsed(&elsewhere).quic);
    }

    #[test]
    fn an_offer_without_data_channels_is_an_error() {
        for (cut, why) in [
            ("m=application", "no data channels in it"),
            ("a=fingerprint", "no SHA-256 fingerprint"),
            ("a=ice-pwd", "no ice-pwd"),
            ("a=ice-ufrag", "no ice-ufrag"),
        ] {
            let lines = OFFER.lines().filter(|line| !line.starts_with(cut));
            let sdp: Vec<_> = lines.collect();
            assert_eq!(Description::parse(&sdp.join("\r\n")), Err(why), "{cut}");
        }
        assert!(Description::parse("").is_err());
        assert!(Description::parse("m=application").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_description_panics(text in "(m=|a=|v=|candidate:|[ -~\r\n]){0,200}") {
            let _ = Description::parse(&text);
        }
    }
}
