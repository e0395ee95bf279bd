//! Contexts of bytes.

use modgrad_graph::Result;

use super::Call;

pub(super) fn run(call: Call<'_, '_>) -> Result<()> {
    Err(call.missing())
}
