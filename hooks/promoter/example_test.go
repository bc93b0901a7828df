package promoter_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/promoter"
	"narwharf/signing"
)

// What `narwharf promote web PATH --from-cache --wait` does.
func Example() {
	server := newServer() // with a closure in its cache that the key "ci-1" signed
	defer server.Close()
	defer server.follow("web-1", "web")() // a host that does what it is told

	key, err := signing.GenerateKey("alice-1") // or signing.ParseSecretKey
	if err != nil {
		fmt.Println(err)
		return
	}
	client, err := api.NewClient(api.ClientOptions{Servers: []string{server.URL}, UserAgent: "my-ci"})
	if err != nil {
		fmt.Println(err)
		return
	}
	p, err := promoter.New(promoter.Options{
		Client: client, Channel: "web", Keys: []signing.Signer{key}, Kind: api.KindPath, System: "x86_64-linux",
		Origin:    "cache.example.org/web", // as hosts are configured
		FromCache: true, ContentKeys: []signing.PublicKey{server.ci.Public()},
	}, io.Discard, os.Stderr) // io.Discard: where os.Stdout would show each host's progress
	if err != nil {
		fmt.Println(err)
		return
	}

	ctx := context.Background()
	release, err := p.BuildPath(ctx, server.path)
	if err != nil {
		fmt.Println(err)
		return
	}
	promoted, err := p.Send(ctx, release)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s is at seq %d, %d target changed\n", promoted.Channel, promoted.Seq, len(promoted.Changed))

	result, err := p.Wait(ctx, promoted.Seq, time.Minute, 10*time.Second)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, h := range result.Hosts {
		fmt.Println(h.Host, "is", h.Status.State)
	}
	fmt.Println(result.Outcome)
	// Output:
	// web is at seq 1, 1 target changed
	// web-1 is ok
	// completed
}
