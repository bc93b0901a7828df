package systemd

import (
	"slices"
	"testing"
	"time"

	"narwharf/nixos/effect"
)

func TestWorthALook(t *testing.T) {
	got := worthALook("web.service loaded active running Web\n● db.service  loaded activating auto-restart DB\n* srv.mount loaded failed failed /srv\n" +
		"tmp.mount loaded active mounted /tmp\n\nnixos-rebuild-switch-to-configuration.service loaded failed failed x\n")
	if !slices.Equal(got, []string{"web.service", "db.service", "srv.mount"}) {
		t.Error(got)
	}
}

// TestNotWell: what systemd calls failed, and what crashed a moment ago. The texts are of
// systemctl show.
func TestNotWell(t *testing.T) {
	const now = time.Hour
	const recently, earlier = "StateChangeTimestampMonotonic=3599000000\n", "StateChangeTimestampMonotonic=3000000000\n"
	failures := map[string]time.Duration{"loop.service": now - time.Second, "forced.service": now - time.Second, "old.service": now - 10*time.Minute}
	for name, c := range map[string]struct {
		show string
		want *effect.Unit // but its name
	}{
		"failed":                         {"ActiveState=failed\nSubState=failed\nType=simple\nResult=exit-code\nNRestarts=0\n", &effect.Unit{Failed: true}},
		"a failed mount":                 {"ActiveState=failed\nSubState=failed\nResult=exit-code\n", &effect.Unit{Failed: true}},
		"runs":                           {"ActiveState=active\nSubState=running\nRestart=always\nResult=success\nNRestarts=0\n" + recently, nil},
		"between two clean runs":         {"ActiveState=activating\nSubState=auto-restart\nRestart=always\nResult=success\nExecMainStatus=0\nNRestarts=4\n" + recently, nil},
		"the next clean run is due":      {"ActiveState=activating\nSubState=auto-restart-queued\nRestart=always\nResult=success\nExecMainStatus=0\nNRestarts=4\n" + recently, nil},
		"a status that is a success":     {"ActiveState=activating\nSubState=auto-restart\nRestart=always\nResult=success\nExecMainStatus=42\nNRestarts=4\n" + recently, nil},
		"after a run that failed":        {"ActiveState=activating\nSubState=auto-restart\nRestart=always\nResult=exit-code\nExecMainStatus=1\nNRestarts=0\n" + recently, &effect.Unit{Failed: true}},
		"its ExecStartPre failed":        {"ActiveState=activating\nSubState=auto-restart\nRestart=always\nResult=exit-code\nExecMainStatus=0\nNRestarts=0\n" + recently, &effect.Unit{Failed: true}},
		"no Result, a status":            {"ActiveState=activating\nSubState=auto-restart\nExecMainStatus=1\n", &effect.Unit{Failed: true}},
		"loop.service":                   {"ActiveState=active\nSubState=running\nRestart=always\nResult=success\nNRestarts=4\n" + recently, &effect.Unit{Crash: "59m59s"}},
		"old.service":                    {"ActiveState=active\nSubState=running\nRestart=always\nResult=success\nNRestarts=4\n" + recently, nil},
		"always clean, and short":        {"ActiveState=active\nSubState=running\nRestart=always\nResult=success\nNRestarts=9\n" + recently, nil},
		"starts again, on-failure":       {"ActiveState=activating\nSubState=start\nType=notify\nRestart=on-failure\nResult=success\nNRestarts=3\n" + recently, &effect.Unit{Crash: "3"}},
		"crashed long ago":               {"ActiveState=active\nSubState=running\nRestart=on-failure\nResult=success\nNRestarts=3\n" + earlier, nil},
		"on-success":                     {"ActiveState=active\nSubState=running\nRestart=on-success\nResult=success\nNRestarts=3\n" + recently, nil},
		"a oneshot of a timer":           {"ActiveState=failed\nSubState=failed\nType=oneshot\nTriggeredBy=backup.timer\n", &effect.Unit{Failed: true, Oneshot: true, Triggered: true}},
		"a simple one of a timer":        {"ActiveState=failed\nSubState=failed\nType=simple\nTriggeredBy=backup.timer\n", &effect.Unit{Failed: true, Oneshot: true, Triggered: true}},
		"sshd@1-10.0.0.1:22-.service":    {"ActiveState=failed\nSubState=failed\nType=simple\nTriggeredBy=sshd.socket\n", &effect.Unit{Failed: true, Oneshot: true, Triggered: true}},
		"a service that a socket starts": {"ActiveState=failed\nSubState=failed\nType=simple\nTriggeredBy=db.socket\n", &effect.Unit{Failed: true, Triggered: true}},
		"one that a path starts":         {"ActiveState=failed\nSubState=failed\nType=simple\nTriggeredBy=reload.path\n", &effect.Unit{Failed: true, Oneshot: true, Triggered: true}},
		"taken out, with 143 at its end": {"LoadState=not-found\nActiveState=failed\nSubState=failed\nType=simple\nResult=exit-code\n", nil},
		"masked":                         {"LoadState=masked\nActiveState=failed\nSubState=failed\nType=simple\nResult=exit-code\n", nil},
		"a file that systemd refuses":    {"LoadState=bad-setting\nActiveState=failed\nSubState=failed\nType=simple\nResult=exit-code\n", &effect.Unit{Failed: true}},
		"a status that restarts, clean":  {"ActiveState=active\nSubState=running\nRestart=on-failure\nRestartForceExitStatus=3 4\nResult=success\nNRestarts=3\n" + recently, nil},
		"forced.service":                 {"ActiveState=active\nSubState=running\nRestart=on-success\nRestartForceExitStatus=1\nResult=success\nNRestarts=3\n" + recently, &effect.Unit{Crash: "59m59s"}},
		"nobody logs its failures":       {"ActiveState=active\nSubState=running\nRestart=always\nResult=success\nNRestarts=4\nLogLevelMax=3\n" + recently, &effect.Unit{Crash: "4"}},
		"it logs warnings":               {"ActiveState=active\nSubState=running\nRestart=always\nResult=success\nNRestarts=4\nLogLevelMax=4\n" + recently, nil},
		"it may log all":                 {"ActiveState=active\nSubState=running\nRestart=always\nResult=success\nNRestarts=4\nLogLevelMax=-1\n" + recently, nil},
		"a person's transient unit":      {"ActiveState=failed\nSubState=failed\nType=oneshot\nTransient=yes\n", nil},
	} {
		for _, changed := range []bool{false, true} {
			got := notWell("Id="+name+"\n"+c.show, now, func(string) bool { return changed }, func() map[string]time.Duration { return failures })
			var want []effect.Unit
			if c.want != nil {
				want = []effect.Unit{*c.want}
				want[0].Name, want[0].Changed = name, changed
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: %+v, want %+v", name, got, want)
			}
		}
	}
	asked := 0
	got := notWell("Id=b.service\nActiveState=failed\n\nId=a.mount\nActiveState=failed\n\nId=c.service\nActiveState=active\n", now, func(string) bool { return true },
		func() map[string]time.Duration { asked++; return nil })
	if len(got) != 2 || got[0].Name != "a.mount" || got[1].Name != "b.service" || asked != 0 {
		t.Errorf("%+v, and the journal was asked %d times", got, asked)
	}
}
