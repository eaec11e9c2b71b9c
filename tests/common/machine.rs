//! The machine on which gt runs: this one, or a router emulated by qemu, with programs from
//! openwrt/build.

use super::gt::GT;
use super::router::REPOSITORY;
use std::path::Path;
use std::process::Command;

pub struct Machine {
    /// qemu's program and the target of openwrt/build.
    router: Option<(&'static str, &'static str)>,
    /// The profile of openwrt/build for the client.
    client: &'static str,
    /// qemu's name of the processor, if it must not be the best of its family.
    processor: Option<&'static str>,
    /// A flag for gt that the emulator needs.
    flag: Option<&'static str>,
}

/// This machine, with the gt of all other tests.
pub const HERE: Machine = Machine {
    router: None,
    client: "",
    processor: None,
    flag: None,
};

impl Machine {
    /// A router whose server is the profile `full`.
    pub const fn router(qemu: &'static str, target: &'static str, client: &'static str) -> Machine {
        Machine {
            router: Some((qemu, target)),
            client,
            processor: None,
            flag: None,
        }
    }

    /// The same with this processor.
    pub const fn with(self, processor: &'static str) -> Machine {
        Machine {
            processor: Some(processor),
            ..self
        }
    }

    /// The same with this flag for gt.
    pub const fn flag(self, flag: &'static str) -> Machine {
        Machine {
            flag: Some(flag),
            ..self
        }
    }

    pub fn server(&self) -> Command {
        self.command("full", "server")
    }

    pub fn client(&self) -> Command {
        self.command(self.client, "client")
    }

    fn command(&self, profile: &str, role: &str) -> Command {
        let Some((qemu, target)) = self.router else {
            let mut command = Command::new(GT);
            command.arg(role);
            return command;
        };
        let program = Path::new(REPOSITORY).join(format!("openwrt/out/gt-{profile}-{target}"));
        assert!(
            program.exists(),
            "there is no {}; make it by: openwrt/build {target} {profile}",
            program.display()
        );
        let mut command = Command::new(qemu);
        command.args(self.processor.into_iter().flat_map(|name| ["-cpu", name]));
        command.arg(program).arg(role).args(self.flag);
        command
    }
}
