//go:build !amd64 && !arm64

package phpworker

import "debug/elf"

// machine is none: the layouts were not looked up on other processors, so no worker is found here.
const machine = elf.EM_NONE
