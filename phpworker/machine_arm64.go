package phpworker

import "debug/elf"

// machine is the processor that the programs looked at are made for.
const machine = elf.EM_AARCH64
