//! The cryptography of TLS connections: `ring`, because it compiles in seconds where the default of
//! `rustls` takes minutes.

use std::sync::Once;

/// Prepares this process for TLS. It must be called before an HTTP client is built, which panics
/// otherwise.
pub fn prepare() {
    static PREPARED: Once = Once::new();
    PREPARED.call_once(|| {
        // The call fails if a provider has been installed already, which then serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
