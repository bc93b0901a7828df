package server

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"narwharf/cache/replica"
	"narwharf/cache/signed"
	"narwharf/cache/state/lease"
	"narwharf/cache/stored"
	"narwharf/cmd/narwharf/server/storage"
	own "narwharf/hooks/replica"
	"narwharf/hooks/serverconfig"
	"narwharf/signing"
)

// lease lets one of the servers that share the state do a kind of work; nil where there is one.
func (d *DataDir) lease(work string) *lease.Lease {
	if !d.Config.Storage.Shared() {
		return nil
	}
	return lease.New(d.State, work, d.Config.Name())
}

// alone is work that one of the servers does which share the state.
func (d *DataDir) alone(name string, work func(ctx context.Context)) func(ctx context.Context) {
	return func(ctx context.Context) {
		d.lease(name).Run(ctx, func(ctx context.Context, _ lease.Held) { work(ctx) })
	}
}

// share has a cache hear what other servers change, until the state is closed.
func (d *DataDir) share(c *stored.Cache, signer *signed.Signer) {
	d.shared = &replica.Cache{State: d.State, Index: c.Index(), Uploads: c.Uploads, Signer: signer, Log: d.log}
	d.shared.Watch()
	c.Collector.Recount, c.Collector.Now = d.shared.Recount, storage.Clock(d.State)
}

// check compares files and index, beside everything else.
func (d *DataDir) check(ctx context.Context) {
	if d.shared != nil {
		d.shared.Check(ctx)
		return
	}
	d.cache.Check(ctx)
}

// asReplica is what this server says of itself to the others; nothing where there is none.
func (d *DataDir) asReplica(keys func() []signing.PublicKey) (own.Options, error) {
	if !d.Config.Storage.Shared() {
		return own.Options{}, nil
	}
	id, err := storage.ID(d.Config)
	return own.Options{ID: id, Ahead: clockAhead(d), Prints: func() map[string]string {
		prints := fingerprints(d.Config)
		if keys != nil { // a job serves nothing, and tells nobody of itself
			var all []string
			for _, k := range keys() {
				all = append(all, k.String())
			}
			slices.Sort(all)
			prints["keys"] = fingerprint(all)
		}
		return prints
	}}, err
}

func clockAhead(d *DataDir) func() time.Duration {
	if st, ok := d.State.(interface{ Ahead() time.Duration }); ok {
		return st.Ahead
	}
	return func() time.Duration { return 0 }
}

// perServer are the keys and sections of a configuration that may differ between servers: where one is and
// how much it takes.
var perServer = []string{"listen", "data_dir", "allow_readable_secrets", "tls", "log", "limits", "storage", "metrics"}

// fingerprints are those of what has to be the same everywhere, by key or section. Names of files are
// those of one machine.
func fingerprints(cfg *serverconfig.Config) map[string]string {
	prints := make(map[string]string)
	v := reflect.ValueOf(cfg).Elem()
	for i := range v.NumField() {
		if name := v.Type().Field(i).Tag.Get("toml"); name != "" && !slices.Contains(perServer, name) {
			prints[name] = fingerprint(withoutFiles(v.Field(i)))
		}
	}
	return prints
}

// withoutFiles is a value of a configuration without keys that name files.
func withoutFiles(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Struct:
		section := make(map[string]any)
		for i := range v.NumField() {
			name := v.Type().Field(i).Tag.Get("toml")
			if name != "" && !strings.HasSuffix(name, "_file") && !strings.HasSuffix(name, "_files") {
				section[name] = withoutFiles(v.Field(i))
			}
		}
		return section
	case reflect.Slice:
		list := make([]any, v.Len())
		for i := range list {
			list[i] = withoutFiles(v.Index(i))
		}
		return list
	}
	return v.Interface()
}

func fingerprint(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		text = []byte(fmt.Sprint(v))
	}
	return fmt.Sprintf("%x", sha256.Sum256(text))[:16]
}
