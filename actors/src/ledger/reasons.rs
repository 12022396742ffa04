//! Why a reading is not in its device's state, or was not taken: the reasons that the ledger counts, by name.
//!
//! The fuzz crate includes this file, because a payload's refusal has such a reason; so it uses nothing of the crate.

/// Defines an enum of reasons with its names and the list of all.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every reason, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The reason as it is shown and exported.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

reasons! {
    /// Why a reading was refused: its sender was told, where the protocol has a way to tell.
    RejectReason {
        /// The payload is not JSON.
        BadJson = "bad-json",
        /// The payload is JSON, but not of a shape that a reading has.
        BadShape = "bad-shape",
        /// No device id, or one that breaks the rules.
        BadDeviceId = "bad-device-id",
        /// `ts` is not a time.
        BadTime = "bad-time",
        /// Larger than `reading_bytes`.
        TooLarge = "too-large",
        /// Nested deeper than `json_depth`.
        TooDeep = "too-deep",
        /// Too many of this device's readings wait for their handlers (`device_in_flight`).
        DeviceInFlight = "device-in-flight",
        /// Its idempotency key came with another body before.
        IdempotencyKeyReused = "idempotency-key-reused",
        /// The node is at one of its limits, or its journal does not take records.
        Overloaded = "overloaded",
        /// The node sheds load: it uses nearly all of its memory ([`crate::turn::Memory::Shedding`]).
        Memory = "memory",
        /// The breaker of one of its handlers is open, and the node is to refuse such readings (`scripts.breaker_policy`).
        HandlerOpen = "handler-open",
    }
}

reasons! {
    /// Why a reading that was received is in no state. The numbers are stored in states: append only.
    DropReason {
        /// A handler returned `null`.
        Handler = "handler",
    }
}

reasons! {
    /// Why a reading gave way to another one. The numbers are stored in states: append only.
    ConflateReason {
        /// The device had sent a reading with a greater time before.
        Late = "late",
        /// The state already has this journal position (seen after a crash only).
        Duplicate = "duplicate",
        /// The same request had brought it before (its idempotency key).
        IdempotentRetry = "idempotent-retry",
        /// It was no report but an event (a connection, a timer), and its handlers made no state of it.
        Event = "event",
    }
}
