//! The cryptography of encrypted connections: `ring`, because it compiles in seconds where the default of `rustls` takes minutes.

use std::sync::Once;

/// Makes encrypted connections possible in this process. To be called before a client of HTTP is built, which panics otherwise.
pub fn prepare() {
    static PREPARED: Once = Once::new();
    PREPARED.call_once(|| {
        // It fails where a provider has been installed already, which then serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
