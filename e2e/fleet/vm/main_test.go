package vm_test

import (
	"testing"

	"narwharf/e2e/fleet"
)

func TestMain(m *testing.M) { fleet.Main(m) }
