//! The only `unsafe` of the project: what librdkafka offers and its safe Rust face does not.
//!
//! * [`fetch`]: batch consumption from one queue of ours, with headers and leader epochs;
//! * [`commit`]: commits whose results come back one by one, and reads of committed offsets with raw metadata;
//! * [`group`]: the membership and the known ends of a partition;
//! * [`topics`]: topic ids;
//! * [`mock`]: control of the embedded mock cluster.
//!
//! Promises: every function here is safe to call. Each `unsafe` block carries its proof. All types own an `Arc` of the
//! client they were made from and destroy their native object *before* they let go of it, since librdkafka requires
//! queues to be gone before the client is destroyed.
#![allow(unsafe_code)]

pub mod commit;
pub mod fetch;
pub mod group;
pub mod mock;
pub mod topics;

use rdkafka::bindings as rd;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use std::ffi::{CStr, c_char};
use std::sync::Arc;

/// A queue of librdkafka that we own. Destroyed on drop, before the client.
struct Queue<C: ConsumerContext + 'static> {
    ptr: *mut rd::rd_kafka_queue_t,
    consumer: Arc<BaseConsumer<C>>,
}

// SAFETY: librdkafka's queue functions may be called from any thread (INTRODUCTION.md, "Threads and callbacks"), and
// the pointer is used only through them while `consumer` keeps the client alive.
unsafe impl<C: ConsumerContext> Send for Queue<C> {}
// SAFETY: as above; no method hands out the pointer.
unsafe impl<C: ConsumerContext> Sync for Queue<C> {}

impl<C: ConsumerContext> Queue<C> {
    fn new(consumer: &Arc<BaseConsumer<C>>) -> Self {
        // SAFETY: the client pointer is valid while `consumer` lives; the new queue is owned by the returned value.
        let ptr = unsafe { rd::rd_kafka_queue_new(consumer.client().native_ptr()) };
        Self { ptr, consumer: Arc::clone(consumer) }
    }

    fn client(&self) -> *mut rd::rd_kafka_t {
        self.consumer.client().native_ptr()
    }
}

impl<C: ConsumerContext> Drop for Queue<C> {
    fn drop(&mut self) {
        // SAFETY: `ptr` came from `rd_kafka_queue_new`, is destroyed once, and the client is still alive: fields are
        // dropped after this body.
        unsafe { rd::rd_kafka_queue_destroy(self.ptr) }
    }
}

/// Copies a C string; empty for a null pointer.
///
/// # Safety
/// `text` is null or points to a NUL-terminated string.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
