//! Durable pairs as the edge writes them: their encoding, what is to be done once they are durable, and the
//! commands and shadows that a start finds.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tidegate_actors::{loop_handle::LoopHandle, placement, runtime::QueryError, store::StoreError};

use crate::{
    commands,
    edge::{EdgeLoop, Shared, here},
    shadow,
};

/// The stored form of a value.
pub(crate) fn encode(value: &impl bincode::Encode) -> Bytes {
    // Nothing that is stored here has a length that bincode does not know, so it always encodes.
    bincode::encode_to_vec(value, bincode::config::standard()).unwrap_or_default().into()
}

/// Reads a stored value that takes up all of `bytes`, and may claim `LIMIT` bytes of memory.
///
/// # Errors
/// It does not, or it is of a newer version; in words.
pub(crate) fn decode<'a, T: bincode::BorrowDecode<'a, ()>, const LIMIT: usize>(bytes: &'a [u8]) -> Result<T, String> {
    // Without the limit a hostile length would abort the process by its allocation.
    let config = bincode::config::standard().with_limit::<LIMIT>();
    match bincode::borrow_decode_from_slice(bytes, config) {
        Ok((value, read)) if read == bytes.len() => Ok(value),
        Ok((_, read)) => Err(format!("{} bytes follow its end", bytes.len() - read)),
        Err(error) => Err(error.to_string()),
    }
}

/// Keeps a pair (`None`: forgets it), durable with the loop's next commit.
///
/// # Errors
/// It is larger than a record may be; in words.
pub(crate) fn keep(edge: &EdgeLoop, key: Bytes, value: Option<Bytes>) -> Result<(), String> {
    edge.handle.keep(key, value).map_err(|error| error.to_string())
}

/// Runs `then` on this loop once everything that it has journaled so far is durable, in the order of the calls.
pub(crate) fn when_durable(edge: &EdgeLoop, then: impl FnOnce() + 'static) {
    edge.handle.when_durable(then);
}

/// How long a loop may be busy with the readings from before the stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why commands and shadows are not back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoverError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A loop.
    #[error(transparent)]
    Loop(QueryError),
}

/// Gives each loop the commands and shadows of its devices, as the last run of the node left them. Before anything comes in.
///
/// # Errors
/// [`RecoverError`].
pub(crate) async fn recover(shared: &Shared) -> Result<(), RecoverError> {
    let loops = shared.runtime.services().loops();
    let mut pairs: Vec<Vec<(Bytes, Bytes)>> = (0..loops).map(|_| Vec::new()).collect();
    let mut unnamed = 0_usize;
    for prefix in [commands::PREFIX, shadow::PREFIX] {
        shared.runtime.kept(&[prefix], &mut |key, value| {
            let device = if prefix == commands::PREFIX { commands::device_of(key) } else { shadow::device_of(key) };
            match device {
                Some(device) => {
                    let owner = placement::owner(device.as_str(), loops);
                    pairs[owner.index()].push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
                }
                None => unnamed += 1,
            }
            ControlFlow::Continue(())
        })?;
    }
    if unnamed > 0 {
        tracing::error!(unnamed, "left out commands and shadows whose keys name no device");
    }
    let pairs = Arc::new(Mutex::new(pairs));
    let take = move |handle: &LoopHandle| {
        // Asked again, it has them already.
        let mine = std::mem::take(&mut pairs.lock().unwrap_or_else(PoisonError::into_inner)[handle.id().index()]);
        let edge = here();
        for (key, value) in mine {
            if key.first() == Some(&commands::PREFIX) {
                commands::recovered(&edge, &key, &value);
            } else {
                shadow::recovered(&edge, &key, &value);
            }
        }
    };
    // Readings from before the stop may fill the inboxes for a while.
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = shared.runtime.on_every_loop(take.clone()).await {
        if Instant::now() > deadline {
            return Err(RecoverError::Loop(error));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
