//! The pieces in which bodies pass: how large they are, and the buffers that keep them meanwhile.

use super::worker::{READ_MAX, READ_START, SPARE_BYTES_MAX};

/// Bytes after which a pump lets the worker's other connections have a turn.
pub(super) const TURN_BYTES_MAX: usize = 1024 * 1024;

/// Reads grow while what they bring is written at once, and start small again when it is not.
pub(super) fn grow(size: &mut usize, moved: usize, is_written: bool) {
    if !is_written {
        *size = READ_START;
    } else if moved >= *size {
        *size = (*size * 4).min(READ_MAX);
    }
}

/// Empties a buffer, and gives it back where it had to be large once.
pub(super) fn empty(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > SPARE_BYTES_MAX {
        *buffer = Vec::new();
    }
}
