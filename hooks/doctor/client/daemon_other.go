//go:build !linux

package client

import "narwharf/hooks/doctor"

// restarted says nothing: how long nix-daemon runs is not looked up here.
func (*Client) restarted(*doctor.Report) {}
