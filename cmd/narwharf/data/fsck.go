package data

import (
	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/server"
)

// Fsck is the command fsck.
func Fsck() *cobra.Command {
	c := command.New("fsck [--repair]", "check every file of the cache", 0, 0,
		`Reads every NAR and narinfo and checks them: each file's own hash, each narinfo
against its NAR and its references, the index against the files, and that
nothing lies about without an owner. It works beside a running server.

With --repair, damaged files are moved to cache/quarantine in data_dir, so that
the next `+"`nix copy --refresh`"+` uploads them again, and the index is put right.
A NAR that another file or the machine's own store still has is made from that.
What the current release of a channel needs and is lost stays damage: the line
names path and channels, and there is an alarm.

One that was stopped is gone on with by the next, for a week: NARs that it had
read are not read again, but for those that were damaged.

With --json each line is an object: kind (damaged, repaired), what (a file), text;
and at the end the sums.

Exit status: 0 clean (or all repaired), 1 damage, 2 it could not look.

    narwharf fsck --config ./data/config.toml`)
	var args server.FsckArgs
	c.Flags().BoolVar(&args.Anew, "anew", false, "read everything, also what one that was stopped had read")
	c.Flags().BoolVar(&args.JSON, "json", false, "print JSON")
	c.Flags().BoolVar(&args.Repair, "repair", false, "move damaged files to quarantine and put the index right")
	return With(c, func(run Job, _ []string) error { return run("fsck", args, c.OutOrStdout()) })
}

// Rebuild is the command rebuild.
func Rebuild() *cobra.Command {
	c := command.New("rebuild", "make the index anew from the files", 0, 0,
		`Reads all narinfo files and makes the index in narwharf.db anew from them. It
works beside a running server, but not beside others that have the same database. If narwharf.db itself is damaged, stop the
server, move the file away and run this.

Where narwharf.db was moved away, tokens come back, too, from their own file, and
channels with releases and policies; hosts report again by themselves. Not in
files, and so not restored: who uploaded a path and when exactly (the file's time
stands in), labels and holds of hosts, which machine each is, the audit log.

Exit status: 0 done, 1 done and paths have lost their NAR, 2 it could not be done.`)
	var args server.RebuildArgs
	c.Flags().BoolVar(&args.JSON, "json", false, "print JSON")
	return With(c, func(run Job, _ []string) error { return run("rebuild", args, c.OutOrStdout()) })
}
