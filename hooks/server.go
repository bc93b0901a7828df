package hooks

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache/limits"
	"narwharf/cache/state"
	"narwharf/cache/state/lease"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/alarm"
	"narwharf/hooks/api/login"
	"narwharf/hooks/audit"
	"narwharf/hooks/call"
	"narwharf/hooks/call/credentials"
	"narwharf/hooks/call/gate"
	"narwharf/hooks/call/retention"
	"narwharf/hooks/call/rollouts"
	"narwharf/hooks/call/telling"
	"narwharf/hooks/channel"
	"narwharf/hooks/closure"
	"narwharf/hooks/desired"
	"narwharf/hooks/exchange"
	"narwharf/hooks/fleetlock"
	"narwharf/hooks/host"
	"narwharf/hooks/host/presence"
	"narwharf/hooks/identity"
	"narwharf/hooks/intake"
	"narwharf/hooks/keys"
	"narwharf/hooks/longpoll"
	"narwharf/hooks/notify"
	"narwharf/hooks/policy"
	"narwharf/hooks/reboot"
	"narwharf/hooks/replica"
	"narwharf/hooks/reply"
	"narwharf/hooks/retain"
	"narwharf/hooks/rollout/check"
	"narwharf/hooks/rollout/driver"
	"narwharf/hooks/rollout/rows"
	"narwharf/hooks/timers"
	"narwharf/signing/access"
	"narwharf/signing/access/session"
	"narwharf/signing/access/shortlived"
)

// Files are those beside the cache's own.
type Files interface {
	channel.Files
	retain.Files
}

// Options configure a Server.
type Options struct {
	State   state.Store
	Cache   closure.Cache
	Files   Files
	Access  *access.Authenticator
	Tokens  *access.Tokens    // of Access, in State
	Short   *shortlived.Store // of Access, in State; nil: opened here
	JWT     exchange.Judge    // nil: none are taken
	Audit   audit.Limits
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Clock   func() time.Time // that of State; nil: time.Now

	HostMetrics        bool          // of each host by its name
	BodyIdle           time.Duration // how long a body may be silent; 0: 30 s
	HostsPerCredential int           // that one token may make, if it is not of one host; 0: 1,000

	Collector    retain.Collector // nil where nothing is served
	KeepReleases int              // of each channel; 0: 10
	ForgetHosts  time.Duration    // whose systems are kept, that were not heard of; 0: 90 days

	Name      string                         // of this server among those that share State, for people
	Replicas  bool                           // others may have State, too
	Lease     func(work string) *lease.Lease // by which one of them does a kind of work; nil without Replicas
	Replica   replica.Options                // what this server says of itself to them; New sets what it knows
	Notify    []notify.Target                // who is told what happens
	PublicURL string                         // that they are told; "" if there is none
	Version   string

	Issuers  []login.Issuer   // by which one can log in
	Identity identity.Options // by which machines join without a token

	Checks       *check.Set     // of the configuration; nil: none
	RebootGroups map[string]int // how many machines of a group may reboot at a time that are no hosts

	// Bootstrap makes a first boot's script; nil where hosts are not to trust the server.
	Bootstrap func(intake.BootstrapRequest) (string, error)
}

func (o *Options) setDefaults() {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Name == "" {
		o.Name, _ = os.Hostname() // for people; nothing rests on it
	}
	o.BodyIdle, o.HostsPerCredential = cmp.Or(o.BodyIdle, 30*time.Second), cmp.Or(o.HostsPerCredential, 1000)
	o.KeepReleases, o.ForgetHosts = cmp.Or(o.KeepReleases, 10), cmp.Or(o.ForgetHosts, 90*24*time.Hour)
}

// Server is the API of channels and hosts, an http.Handler for /api/v1/.
type Server struct {
	access *access.Authenticator
	log    *slog.Logger
	clock  func() time.Time

	set        *mirror.Set
	memory     audit.Memory // of the log
	limits     audit.Limits
	refusals   *audit.Refusals
	channels   *channel.Channels
	policies   *policy.Policies
	keys       *keys.Keyrings
	hosts      *host.Hosts
	Identities *identity.Identities
	slots      *reboot.Slots
	Rollouts   *driver.Driver
	replicas   *replica.Book   // nil where no other server has the state
	sharing    *presence.Share // nil where no other server has the state
	Fleet      *desired.Fleet
	Retain     *retain.Retainer
	Alarms     *alarm.Book
	notify     *notify.Sender

	credentials *credentials.Handlers
	retention   *retention.Handlers
	telling     *telling.Handlers
	rollouts    *rollouts.Handlers
	checks      *gate.Checks
	reboots     *gate.Reboots

	timers  *timers.Set
	shared  *call.Shared
	metrics *metrics
	handler http.Handler

	ready   atomic.Bool // all of the above is there
	unwatch func()
	waking  sync.WaitGroup
}

// New opens the channels and hosts in a state.
func New(o Options) (_ *Server, err error) {
	o.setDefaults()
	if err := state.CheckVersion(o.State, "hooks/meta", "version", "1"); err != nil {
		return nil, fmt.Errorf("open channels: %w", err)
	}
	set := mirror.NewSet(o.State, o.Log)
	s := &Server{
		access: o.Access, log: o.Log, clock: o.Clock,
		set: set, limits: o.Audit, refusals: audit.NewRefusals(set, o.Clock, o.Log), timers: timers.New(o.Clock),
		shared: &call.Shared{Access: o.Access, BodyIdle: o.BodyIdle, Rooms: call.NewRooms(), Answers: limits.NewAnswers(), Work: limits.NewWork()},
	}
	s.unwatch = o.State.Watch(func(topics []string) {
		set.Noticed(topics)
		if s.ready.Load() {
			s.noticed(topics)
		}
	})
	defer func() {
		if err != nil {
			s.unwatch()
		}
	}()
	s.shared.Polls = longpoll.New(longpoll.Options{Log: s.log, Answered: s.count, WriteError: func(w http.ResponseWriter, req *http.Request, err error) {
		reply.Error(w, req, err, s.log)
	}})
	if err := s.open(&o); err != nil {
		return nil, err
	}
	s.metrics = newMetrics(s, o.Metrics, o.HostMetrics)
	s.handler = s.route()
	s.ready.Store(true)
	s.Fleet.Noticed([]string{state.All})
	s.Rollouts.Begin()
	return s, nil
}

// open opens the tables in their order: who needs another comes after it.
func (s *Server) open(o *Options) (err error) {
	if o.Short == nil {
		if o.Short, err = shortlived.Open(o.State, o.Log); err != nil {
			return err
		}
	}
	closures := closure.New(o.Cache, o.Files, o.Log)
	if s.channels, err = channel.New(s.set, closures, o.Files, o.Log); err != nil {
		return err
	}
	if s.policies, err = policy.New(s.set, o.Files); err != nil {
		return err
	}
	if s.keys, err = keys.New(s.set, s.channels, o.Files); err != nil {
		return err
	}
	o.Identity.Set, o.Identity.Short, o.Identity.Log, o.Identity.Clock = s.set, o.Short, o.Log, o.Clock
	if s.Identities, err = identity.New(context.Background(), o.Identity); err != nil {
		return err
	}
	if s.hosts, err = host.New(s.set, host.Options{
		Tokens: o.Tokens, Short: o.Short, Forgotten: s.Identities.Forget, PerCredential: o.HostsPerCredential, Log: o.Log, Clock: o.Clock,
	}); err != nil {
		return err
	}
	if o.Replicas {
		s.sharing = s.hosts.Sharing(o.State)
	}
	if s.slots, err = reboot.New(s.set, o.Clock()); err != nil {
		return err
	}
	if s.Rollouts, err = driver.New(driver.Options{
		Set: s.set, Channels: s.channels, Policies: s.policies, Hosts: s.hosts, Slots: s.slots,
		Timers: s.timers, Wake: s.shared.Polls.Notify, Log: o.Log, Clock: o.Clock, Name: o.Name, Shared: o.Replicas,
	}); err != nil {
		return err
	}
	s.channels.Needed = rows.Needed
	s.Fleet = desired.New(desired.Options{
		Set: s.set, Channels: s.channels, Policies: s.policies, Keys: s.keys, Hosts: s.hosts, Slots: s.slots, Rollouts: s.Rollouts,
		Timers: s.timers, Wake: s.shared.Polls.Notify, Log: o.Log, Clock: o.Clock,
	})
	if s.Retain, err = retain.New(retain.Options{
		State: o.State, Set: s.set, Channels: s.channels, Hosts: s.hosts, Closures: closures, Files: o.Files, Log: o.Log, Clock: o.Clock,
		KeepReleases: o.KeepReleases, ForgetHosts: o.ForgetHosts,
	}); err != nil {
		return err
	}
	if s.Alarms, err = alarm.New(s.set, o.Clock, o.Log); err != nil {
		return err
	}
	if o.Replicas {
		o.Replica.Set, o.Replica.Name, o.Replica.Version, o.Replica.Clock, o.Replica.Log = s.set, o.Name, o.Version, o.Clock, o.Log
		o.Replica.Alarm = s.Alarms.Of("server.replicas")
		s.replicas = replica.New(o.Replica)
		if o.Metrics != nil {
			o.Metrics.MustRegister(s.replicas)
		}
	}
	s.notify = notify.New(notify.Options{Set: s.set, Targets: o.Notify, PublicURL: o.PublicURL, Version: o.Version, Alarms: s.Alarms, Clock: o.Clock, Log: o.Log, Lease: o.Lease})
	s.telling = &telling.Handlers{Alarms: s.Alarms, Notify: s.notify}
	s.checks = &gate.Checks{Set: o.Checks, Release: s.release}
	s.reboots = &gate.Reboots{Slots: s.slots, Policies: s.policies, Locks: fleetlock.New(fleetlock.Options{
		Set: s.set, Slots: s.slots, Policies: s.policies, Groups: o.RebootGroups, Frozen: s.frozen,
	})}
	s.retention = &retention.Handlers{Retain: s.Retain, Collector: o.Collector, Channels: s.channels}
	s.rollouts = &rollouts.Handlers{Channels: s.channels, Policies: s.policies, Fleet: s.Fleet, Driver: s.Rollouts, Clock: o.Clock}
	s.credentials = &credentials.Handlers{
		Tokens: o.Tokens, Exchange: exchange.New(s.set, o.Short, o.JWT), Sessions: session.New(o.Short, o.Tokens), Issuers: o.Issuers, Identities: s.Identities,
		Hosts: s.hosts, Channels: s.channels, Clock: o.Clock, Script: o.Bootstrap,
	}
	return nil
}

// noticed is told which topics the state notified of. Polls are woken by others,
// since whoever commits waits for it.
func (s *Server) noticed(topics []string) {
	s.Fleet.Noticed(topics)
	s.Rollouts.Noticed(topics)
	s.Alarms.Noticed(topics)
	s.notify.Noticed(topics)
	if s.replicas != nil {
		s.replicas.Noticed(topics)
	}
	s.waking.Go(func() {
		if slices.Contains(topics, state.All) {
			s.shared.Polls.NotifyAll()
		} else {
			s.shared.Polls.Notify(topics...)
		}
	})
}

// Tend does what is to be done until ctx ends: it keeps the audit log within its limits, opens and
// closes alarms, tells targets, and asks the checks of what bakes.
func (s *Server) Tend(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { s.Alarms.Tend(ctx) })
	all.Go(func() { s.notify.Tend(ctx) })
	all.Go(func() { s.ask(ctx) })
	if s.sharing != nil {
		all.Go(func() { s.sharing.Run(ctx) })
		all.Go(func() { s.replicas.Tend(ctx) })
	}
	audit.Tend(ctx, s.set, s.limits, s.clock, s.log)
}

// Restore makes the tables of channels and pins anew from their files, for a state that was lost: see
// channel.Channels.Restore. Hosts report again; holds, labels, slots and the audit log are gone.
func (s *Server) Restore(ctx context.Context, report func(format string, args ...any)) (channels, releases int, err error) {
	if channels, releases, err = s.channels.Restore(ctx, report); err == nil {
		err = s.policies.Restore(ctx)
	}
	if err == nil {
		err = s.keys.Restore(ctx)
	}
	if err == nil {
		err = s.Retain.Restore(ctx, report)
	}
	return channels, releases, err
}

// Stop answers all parked polls with 503. When it returns, no poll is off net/http any more.
func (s *Server) Stop() {
	s.unwatch()
	s.timers.Stop()
	s.waking.Wait()
	s.shared.Polls.Stop()
}

// Returned is a listener for the http.Server that serves s, in addition to its
// others: see longpoll.Polls.Listener.
func (s *Server) Returned(idle time.Duration) net.Listener { return s.shared.Polls.Listener(idle) }

// Polls tells of changes, for who looks at what is here.
func (s *Server) Polls() *longpoll.Polls { return s.shared.Polls }

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	req.URL.RawPath = ""
	reply.Identify(w, req)
	limits.Early(limits.NewAnswer(w), req, limits.Unread, s.handler.ServeHTTP) // also of what is at no route
}
