// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package tile

import (
	"os"
	"os/exec"
	"syscall"
)

// namespace gives a command mounts of its own.
func namespace(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
}

// mount mounts a file system in memory, or the same with other options.
func mount(dir string, again bool, options string) error {
	var flags uintptr
	if again {
		flags = syscall.MS_REMOUNT
	}
	switch options {
	case "ro":
		flags, options = flags|syscall.MS_RDONLY, ""
	case "rw":
		options = ""
	}
	return syscall.Mount("tmpfs", dir, "tmpfs", flags, options)
}
