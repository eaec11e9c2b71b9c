//! The streams of one tunnel by their ids.

use super::stream_state::StreamState;
use crate::collections::HashMap;
use crate::wire::frame::StreamId;

/// Room for streams that is kept when the last one has ended.
const KEPT: usize = 16;

/// The streams of one tunnel.
#[derive(Default)]
// In a box: most tunnels have none most of the time.
#[allow(clippy::box_collection)]
pub(super) struct StreamTable(Option<Box<HashMap<StreamId, StreamState>>>);

impl StreamTable {
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |streams| streams.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn contains(&self, stream_id: StreamId) -> bool {
        let streams = self.0.as_ref();
        streams.is_some_and(|streams| streams.contains_key(&stream_id))
    }

    pub fn get_mut(&mut self, stream_id: StreamId) -> Option<&mut StreamState> {
        self.0.as_mut()?.get_mut(&stream_id)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut StreamState> {
        self.0.iter_mut().flat_map(|streams| streams.values_mut())
    }

    /// Returns the streams that the peer does not know of.
    #[cfg_attr(any(feature = "sim", not(feature = "quic")), allow(dead_code))]
    pub fn unannounced(&self) -> impl Iterator<Item = StreamId> + '_ {
        let streams = self.0.iter().flat_map(|streams| streams.iter());
        let unannounced = streams.filter(|(_, stream)| stream.unannounced.is_some());
        unannounced.map(|(stream_id, _)| *stream_id)
    }

    pub fn insert(&mut self, stream_id: StreamId, stream: StreamState) {
        let streams = self.0.get_or_insert_default();
        streams.insert(stream_id, stream);
    }

    pub fn remove(&mut self, stream_id: StreamId) -> Option<StreamState> {
        let streams = self.0.as_mut()?;
        let removed = streams.remove(&stream_id);
        if streams.is_empty() {
            streams.shrink_to(KEPT);
        }
        removed
    }

    /// Gives all memory back if there are no streams.
    pub fn tidy(&mut self) {
        self.0.take_if(|streams| streams.is_empty());
    }
}
