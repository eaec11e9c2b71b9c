//! The role of a configuration file: by its `type:`, or by its keys.

use serde::Deserialize;

use super::file::Document;
use super::value::{given, Value};
#[cfg(all(feature = "server", feature = "client"))]
use super::{client, server};
use super::{foreign, ConfigError, RoleName};

/// The role that a file names.
#[derive(Deserialize)]
struct FileType {
    r#type: Option<Value<RoleName>>,
}

impl Document {
    /// Returns the role of the file: the `asked` one, or else that of `type:`, or else that which
    /// its keys belong to.
    pub fn role(&self, asked: Option<RoleName>) -> Result<RoleName, ConfigError> {
        if let Some(why) = foreign::frp(&self.keys(&[]), self.text()) {
            return Err(self.error(format_args!("{why}")));
        }
        let (FileType { r#type }, _) = self.read(&[])?;
        let role = match (asked, given(r#type)) {
            (Some(asked), Some(says)) if asked != says => {
                return Err(self.error(format_args!(
                    "This is a {says}'s file (type: {says}), but gt was started as a {asked}."
                )))
            }
            (Some(role), _) | (None, Some(role)) => role,
            (None, None) => self.role_by_keys()?,
        };
        if role.built() {
            Ok(role)
        } else {
            Err(self.error(format_args!(
                "This is a {role}'s file, but this gt was built without the {role}."
            )))
        }
    }

    #[cfg(not(all(feature = "server", feature = "client")))]
    fn role_by_keys(&self) -> Result<RoleName, ConfigError> {
        RoleName::only()
            .ok_or_else(|| self.error(format_args!("This gt was built without a role.")))
    }

    #[cfg(all(feature = "server", feature = "client"))]
    fn role_by_keys(&self) -> Result<RoleName, ConfigError> {
        let mut server = Vec::new();
        let mut client = Vec::new();
        for key in self.keys(&[]) {
            match key {
                "users" | "tcp" | "tcpNumber" | "host" => server.push(key),
                "services" => client.push(key),
                _ => (),
            }
        }
        for key in self.keys(&["options"]) {
            let of_server = server::names().any(|name| name.camel == key);
            let of_client = client::names().any(|name| name.camel == key);
            if of_server && !of_client {
                server.push(key);
            } else if of_client && !of_server {
                client.push(key);
            }
        }
        let advice = "add \"type: server\" or \"type: client\" to it.";
        match (server.first(), client.first()) {
            (Some(_), None) => Ok(RoleName::Server),
            (None, Some(_)) => Ok(RoleName::Client),
            (Some(server), Some(client)) => Err(self.error(format_args!(
                "This could be a server's file ({server}) or a client's ({client}): {advice}"
            ))),
            (None, None) => Err(self.error(format_args!(
                "Nothing here says whether it is a server's file or a client's: {advice}"
            ))),
        }
    }
}
