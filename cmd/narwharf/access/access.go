// Package access has the commands about who may do what, and who did it.
package access

import "github.com/spf13/cobra"

// Commands are those of this package.
func Commands() []*cobra.Command {
	return []*cobra.Command{Login(), Logout(), Rules(), Token(), Events()}
}
