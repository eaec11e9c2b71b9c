//! Hash tables of the standard library. All of gt uses these names, so that a simulation can repeat the
//! order of their entries, which is random otherwise.

use std::collections;
#[cfg(feature = "sim")]
use std::hash::{BuildHasherDefault, DefaultHasher};

/// Makes the hash function of a table: a random one against peers that choose keys which collide.
#[cfg(not(feature = "sim"))]
pub type Hashing = collections::hash_map::RandomState;
/// Makes the hash function of a table: the same one in each simulation.
#[cfg(feature = "sim")]
pub type Hashing = BuildHasherDefault<DefaultHasher>;

/// [`std::collections::HashMap`].
#[allow(clippy::disallowed_types)]
pub type HashMap<K, V> = collections::HashMap<K, V, Hashing>;
/// [`std::collections::HashSet`].
#[cfg(any(feature = "server", feature = "p2p", feature = "quic"))]
#[allow(clippy::disallowed_types)]
pub type HashSet<T> = collections::HashSet<T, Hashing>;
