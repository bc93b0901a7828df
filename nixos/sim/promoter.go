package sim

import (
	"crypto/sha256"
	"time"

	"narwharf/narinfo"
	"narwharf/nixos/desired"
	"narwharf/nixos/machine"
	"narwharf/nixos/probation"
	"narwharf/signing"
)

// What every World's release is of.
const (
	Origin  = "cache.example.org/prod"
	Channel = "prod"
	Target  = "h1"
	Machine = "x86_64-linux"
)

// Created is when every release was made.
var Created = time.Unix(1_700_000_000, 0).UTC()

// A Promoter signs releases.
type Promoter struct{ Key signing.SecretKey }

// NewPromoter makes a key.
func NewPromoter() *Promoter {
	k, err := signing.GenerateKey("deploy-1")
	if err != nil {
		panic(err)
	}
	return &Promoter{Key: k}
}

// Trust is what a host has to be configured with.
func (p *Promoter) Trust() signing.Trust {
	return signing.Trust{Keys: []signing.PublicKey{p.Key.Public()}, Threshold: 1, Origin: Origin, Channel: Channel, Target: Target}
}

// Info is what the cache has of a path: a closure of one path.
func Info(path string) *narinfo.Info {
	p, err := narinfo.ParsePath(StoreDir, path)
	if err != nil {
		panic(err)
	}
	return &narinfo.Info{
		StoreDir: StoreDir, Path: p, URL: "nar/" + p.Hash() + ".nar.zst", Compression: "zstd", FileSize: 100,
		NarHash: narinfo.Hash(sha256.Sum256([]byte(path))), NarSize: 1000,
	}
}

// Manifest of a path's closure.
func Manifest(path string) *signing.Manifest {
	m, err := signing.NewManifest([]*narinfo.Info{Info(path)})
	if err != nil {
		panic(err)
	}
	return m
}

// Pointer is a release's, of one system for everyone.
func (p *Promoter) Pointer(seq int64, path string, action signing.Action) *signing.Pointer {
	return p.PointerOf(signing.Head{Origin: Origin, Channel: Channel, Seq: seq, Created: Created},
		signing.Entry{Target: signing.Everyone, StorePath: path, Closure: Manifest(path).Digest(), System: Machine, Action: action})
}

// PointerOf is for heads and entries that are out of the ordinary.
func (p *Promoter) PointerOf(h signing.Head, e signing.Entry) *signing.Pointer {
	r, err := signing.NewRelease(h, []signing.Entry{e}, p.Key)
	if err != nil {
		panic(err)
	}
	pointer, err := r.Pointer(0)
	if err != nil {
		panic(err)
	}
	return pointer
}

// Rules are those of the tests, unless they change them.
func (p *Promoter) Rules() machine.Rules {
	return machine.Rules{
		Rules:     desired.Rules{Trust: p.Trust(), System: Machine, StoreDir: StoreDir, Directives: desired.ObeyLimited, Retries: 8, Minimum: 10 * time.Second, ConfirmTimeout: 60 * time.Second},
		Probation: probation.Rules{Settle: 10 * time.Second}, Interval: time.Second, CheckTime: 10 * time.Second,
	}
}
