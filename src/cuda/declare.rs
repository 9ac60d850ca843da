//! The macro that declares kernels, each with a function that launches it with checked arguments.

/// The declaration of a kernel: its file in `kernels/`, its name, and names and types of its
/// parameters.
#[cfg(test)]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Signature {
    pub(super) file: String,
    pub(super) name: String,
    pub(super) parameters: Vec<(String, String)>,
}

macro_rules! kernels {
    ($($(#[$about:meta])* $file:ident::$($name:ident)|+ = $kernel:ident $(($($uninit_on_same_stream:ident),+))? {
        $($parameter:ident: $type:ty $([$min_len:expr])?,)+
    } over $grid:expr $(, the $which:expr)? $(, if $fits:expr)?;)+) => {
        $(
            $(#[$about])*
            pub struct $kernel<'a> {
                $($(pub $uninit_on_same_stream: usize,)+)?
                $(pub $parameter: <$type as Parameter>::Argument<'a>,)+
            }

            impl $kernel<'_> {
                /// Puts the kernel on the stream of its arrays, unless its grid is empty.
                ///
                /// # Errors
                /// `internal` if the arguments do not fit each other or the kernel, and the errors
                /// of the driver.
                pub fn launch(self) -> Result<()> {
                    let Self { $($($uninit_on_same_stream,)+)? $($parameter,)+ } = self;
                    let grid: Grid = $grid;
                    if grid.is_empty() {
                        return Ok(());
                    }
                    let name = [$(stringify!($name)),+][[$($which,)? 0][0]];
                    $(if !$fits {
                        fault!("kernel {name}: its sizes do not fit: {}", stringify!($fits));
                    })?
                    let mut launch = Launch::of((stringify!($file), name));
                    $(<$type as Parameter>::add_to(
                        &mut launch, stringify!($parameter), $parameter, [$($min_len,)? 0][0],
                    )?;)+
                    // SAFETY: the arguments are those of the row, which a test compares with the
                    // source of the kernel. The row declares how many elements the kernel accesses
                    // in this grid.
                    unsafe { launch.start(grid) }
                }
            }
        )+

        /// The signatures of all kernels.
        #[cfg(test)]
        pub(super) fn table() -> Vec<Signature> {
            let mut table = Vec::new();
            $(for name in [$(stringify!($name)),+] {
                let parameters = vec![$((stringify!($parameter).to_string(), <$type as Parameter>::spelling())),+];
                table.push(Signature {
                    file: stringify!($file).to_string(), name: name.to_string(), parameters,
                });
            })+
            table
        }
    };
}

pub(super) use kernels;
