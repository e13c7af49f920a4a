package sandbox

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// handle refers to a process by a descriptor, so that no other can be meant that has got its id since.
type handle struct{ pid, fd int }

func openProcess(pid int) (handle, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return handle{}, fmt.Errorf("opening process %d: %w", pid, err)
	}
	return handle{pid: pid, fd: fd}, nil
}

func (p handle) signal(sig unix.Signal) error {
	if err := unix.PidfdSendSignal(p.fd, sig, nil, 0); err != nil {
		return fmt.Errorf("signalling process %d: %w", p.pid, err)
	}
	return nil
}

// wait returns when the process has ended.
func (p handle) wait() error {
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, -1)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (p handle) close() { _ = unix.Close(p.fd) }
