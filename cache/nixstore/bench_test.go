package nixstore

import (
	"context"
	"fmt"
	"testing"
)

func benchStore(b *testing.B, n int) (*Store, []*PathInfo) {
	b.Helper()
	f := newFixture(b, "/nix/store")
	infos := pathInfos("/nix/store", n, 10)
	f.put(infos...)
	return f.open(), infos
}

func BenchmarkInfo(b *testing.B) {
	for _, n := range []int{10_000, 200_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, infos := benchStore(b, n)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i += 7919
				if _, err := s.Info(context.Background(), infos[i%n].Path); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkInfoParallel(b *testing.B) {
	const n = 10_000
	s, infos := benchStore(b, n)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		i := 0
		for pb.Next() {
			i += 7919
			if _, err := s.Info(context.Background(), infos[i%n].Path); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkInfoByHash(b *testing.B) {
	const n = 10_000
	s, infos := benchStore(b, n)
	i := 0
	for b.Loop() {
		i += 7919
		if _, err := s.InfoByHash(context.Background(), infos[i%n].Path.Hash()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVersion(b *testing.B) {
	s, _ := benchStore(b, 100)
	for b.Loop() {
		if _, err := s.Version(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkClosure(b *testing.B) {
	for _, n := range []int{10_000, 200_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, infos := benchStore(b, n)
			b.ReportAllocs()
			var paths int
			for b.Loop() {
				all, err := s.Closure(context.Background(), infos[n-1].Path)
				if err != nil {
					b.Fatal(err)
				}
				paths = len(all)
			}
			b.ReportMetric(float64(paths), "paths")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/1000/float64(b.N)/float64(paths), "µs/path")
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	f := newFixture(b, "/nix/store")
	f.put(pathInfos("/nix/store", 1000, 10)...)
	for b.Loop() {
		s, err := Open(Options{StateDir: f.state})
		if err != nil {
			b.Fatal(err)
		}
		_ = s.Close()
	}
}

// BenchmarkDaemon asks a real daemon: for paths over one connection, and for
// one path over a new connection each time.
func BenchmarkDaemon(b *testing.B) {
	for _, version := range nixVersions {
		b.Run(version, func(b *testing.B) {
			n := newNix(b, version)
			roots := n.build()
			n.daemon()
			s := n.open(n.daemonOnly())
			b.Run("kept", func(b *testing.B) {
				for b.Loop() {
					if _, err := s.Info(context.Background(), roots[0]); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run("new", func(b *testing.B) {
				for b.Loop() {
					s := n.open(n.daemonOnly())
					if _, err := s.Info(context.Background(), roots[0]); err != nil {
						b.Fatal(err)
					}
					_ = s.Close()
				}
			})
		})
	}
}

func BenchmarkStill(b *testing.B) {
	s, _ := benchStore(b, 1000)
	v, err := s.Version(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if !s.Still(v) {
			b.Fatal("the store has changed")
		}
	}
}
