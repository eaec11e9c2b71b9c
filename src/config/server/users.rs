//! The users of the configuration, merged by id. Not their authentication.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Deserialize;

use super::limits::{GlobalLimits, HostEntry, Limits, PartLimits, PartPorts, PortEntry};
use super::options::PairedOptions;
use super::overlap::{self, Own};
use crate::config::value::{all, given, Value};
use crate::config::{check_length, secret_file, AddressRules, Domain, Network, Secret};
use crate::keys::AuthorizedKey;

/// A user that may connect.
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    /// Id, 1 to 200 bytes.
    pub id: String,
    /// Secret, 1 to 200 bytes; `None` if the user has keys alone, or is disabled.
    pub secret: Option<Secret>,
    /// Keys, each of which proves the id; none if the user is disabled.
    pub keys: Vec<AuthorizedKey>,
    /// PEM file with the authorities of the certificates that visitors of the user's names need; `None` for the
    /// server's rule.
    pub client_ca: Option<PathBuf>,
    /// Complete limits: the user's own, and the global ones where it has none.
    pub limits: Limits,
}

/// The yaml section of a user, whose key is the id.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct UserEntry {
    disabled: Option<Value<bool>>,
    secret: Option<Value<Secret>>,
    secret_file: Option<Value<PathBuf>>,
    public_key: Option<Vec<Value<AuthorizedKey>>>,
    tcp: Option<Vec<PortEntry>>,
    tcp_number: Option<Value<u32>>,
    udp: Option<Vec<PortEntry>>,
    udp_number: Option<Value<u32>>,
    from: Option<Vec<Value<Network>>>,
    speed: Option<Value<u64>>,
    connections: Option<Value<u32>>,
    host: HostEntry,
    domains: Option<Vec<Value<Domain>>>,
    #[serde(rename = "clientCA")]
    client_ca: Option<Value<PathBuf>>,
}

/// The users of several sources; a source of higher priority is added first.
#[derive(Default)]
pub struct UsersConfig(BTreeMap<String, (PartProof, PartLimits)>);

/// What proves the id of a user, and that its visitors may come, in one source of the configuration; a field is `None` if the source does not set it.
#[derive(Default)]
struct PartProof {
    secret: Option<Secret>,
    keys: Option<Vec<AuthorizedKey>>,
    /// What proves that a visitor may come.
    client_ca: Option<PathBuf>,
    /// Whether the user may not connect.
    disabled: Option<bool>,
}

impl PartProof {
    /// Fills in what is missing from a source of lower priority.
    fn or(self, lower: Self) -> Self {
        Self {
            secret: self.secret.or(lower.secret),
            keys: self.keys.or(lower.keys),
            client_ca: self.client_ca.or(lower.client_ca),
            disabled: self.disabled.or(lower.disabled),
        }
    }
}

impl UsersConfig {
    /// Adds the users of paired options, the i-th `id` with the i-th `secret`. Adds nothing if all
    /// of them are empty.
    pub fn add_pairs(&mut self, options: &PairedOptions) -> Result<(), String> {
        let (ids, secrets) = (&options.id, &options.secret);
        let none = ids.iter().all(|id| id.0.is_none()) && secrets.iter().all(|it| it.0.is_none());
        if none {
            return Ok(());
        }
        if ids.len() != secrets.len() {
            return Err(format!(
                "There are {} id and {} secret: the i-th secret belongs to the i-th id, so give \
                     as many of both.",
                ids.len(),
                secrets.len()
            ));
        }
        let mut before = BTreeSet::new();
        for (id, secret) in ids.iter().zip(secrets) {
            let id = id.0.clone().unwrap_or_default();
            if !before.insert(id.clone()) {
                return Err(format!("The id \"{id}\" is given twice."));
            }
            // An empty secret is an error later, and not replaced by that of another source.
            let secret = secret.0.clone().unwrap_or_else(|| Secret::new(""));
            let proof = PartProof {
                secret: Some(secret),
                ..PartProof::default()
            };
            self.add(id, proof, PartLimits::default());
        }
        Ok(())
    }

    /// Adds the users of a file, and the files that their secrets are in to `secret_files`.
    pub fn add_entries(
        &mut self,
        entries: BTreeMap<String, UserEntry>,
        secret_files: &mut Vec<PathBuf>,
    ) -> Result<(), String> {
        for (id, entry) in entries {
            let from = entry.from.map(|from| {
                let rules = AddressRules::new(("from", from), ("", Vec::new()));
                rules.map_err(|why| format!("The user \"{id}\": {why}"))
            });
            let limits = PartLimits {
                from: from.transpose()?,
                tcp: PartPorts {
                    list: entry.tcp,
                    number: given(entry.tcp_number),
                },
                udp: PartPorts {
                    list: entry.udp,
                    number: given(entry.udp_number),
                },
                speed: given(entry.speed),
                connections: given(entry.connections),
                host: entry.host,
                domains: entry.domains.map(all),
            };
            let secret = match (given(entry.secret), given(entry.secret_file)) {
                (Some(_), Some(_)) => {
                    return Err(format!(
                        "The user \"{id}\" has secret and secretFile: remove one of them."
                    ))
                }
                (None, Some(path)) => {
                    let secret = secret_file::secret("secretFile", &path);
                    secret_files.push(path);
                    Some(secret.map_err(|why| format!("The user \"{id}\": {why}"))?)
                }
                (secret, None) => secret,
            };
            let proof = PartProof {
                secret,
                keys: entry.public_key.map(all),
                client_ca: given(entry.client_ca),
                disabled: given(entry.disabled),
            };
            self.add(id, proof, limits);
        }
        Ok(())
    }

    /// Adds a user, or fills in what earlier sources have not set for its id.
    fn add(&mut self, id: String, proof: PartProof, limits: PartLimits) {
        let (higher_proof, higher_limits) = self.0.remove(&id).unwrap_or_default();
        self.0
            .insert(id, (higher_proof.or(proof), higher_limits.or(limits)));
    }

    /// Returns the users' own ranges of ports of one protocol.
    fn ranges(&self, of: fn(&PartLimits) -> &PartPorts) -> impl Iterator<Item = Own<'_>> {
        let users = self.0.iter();
        users.flat_map(move |(id, (_, limits))| {
            of(limits).ranges().map(move |range| (id.as_str(), range))
        })
    }

    /// Returns the warnings about users' own ranges that overlap the global ones, if any client may use
    /// the global ones: a user without ranges, or, with `strangers`, a client that is not a user.
    pub fn warn_of_global(
        &self,
        global: &GlobalLimits,
        strangers: bool,
    ) -> impl Iterator<Item = String> {
        let check = |protocol, of: fn(&PartLimits) -> &PartPorts, global: &PartPorts| {
            let mut users = self.0.values();
            if !strangers && users.all(|(_, limits)| of(limits).list.is_some()) {
                return None;
            }
            let global: Vec<_> = global.ranges().collect();
            overlap::warn_of_global(protocol, self.ranges(of), &global)
        };
        let warnings = [
            check("tcp", |limits| &limits.tcp, &global.tcp),
            check("udp", |limits| &limits.udp, &global.udp),
        ];
        warnings.into_iter().flatten()
    }

    /// Checks the users and completes their limits.
    pub fn finish(self, global: &GlobalLimits) -> Result<Vec<User>, String> {
        overlap::check_users("tcp", self.ranges(|limits| &limits.tcp))?;
        overlap::check_users("udp", self.ranges(|limits| &limits.udp))?;
        let finish = |(id, (proof, limits)): (String, (PartProof, PartLimits))| {
            check_length(&format!("The id \"{id}\""), id.len())?;
            let PartProof {
                secret,
                keys,
                client_ca,
                disabled,
            } = proof;
            let keys = keys.unwrap_or_default();
            match &secret {
                Some(secret) => check_length(
                    &format!("The secret of the user \"{id}\""),
                    secret.as_bytes().len(),
                )?,
                None if keys.is_empty() => {
                    return Err(format!("The user \"{id}\" has no secret and no publicKey."))
                }
                None => {}
            }
            let limits = limits.complete(global);
            let is_enabled = !disabled.unwrap_or(false);
            Ok(User {
                id,
                client_ca,
                secret: secret.filter(|_| is_enabled),
                keys: if is_enabled { keys } else { Vec::new() },
                limits,
            })
        };
        self.0.into_iter().map(finish).collect()
    }
}
