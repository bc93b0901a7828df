package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"narwharf/cache/state"
)

const (
	gather = 20 * time.Millisecond // between two NOTIFYs
	look   = time.Second           // between two readings of the rows of notices
	keep   = 2 * time.Minute       // how long these are kept
	// behind is how old the last reading may be: after that rows may be gone that were
	// never read.
	behind = time.Minute
	// A NOTIFY takes less than 8,000 bytes.
	maxPayload = 7900
)

// outbox has the topics that the other servers have not been told of.
type outbox struct {
	mu     sync.Mutex
	topics map[string]struct{}
	wake   chan struct{}
}

func (o *outbox) add(topics []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.topics == nil {
		o.topics = make(map[string]struct{})
	}
	for _, t := range topics {
		o.topics[t] = struct{}{}
	}
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// payload is the text of a NOTIFY.
type payload struct {
	Sender string   `json:"s"`
	Topics []string `json:"t"`
}

// take empties the outbox into payloads.
func (o *outbox) take(sender string) (texts []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p, size := payload{Sender: sender}, 0
	done := func() {
		if len(p.Topics) > 0 {
			text, _ := json.Marshal(p) // strings always can
			texts = append(texts, string(text))
		}
		p.Topics, size = nil, 64
	}
	done()
	for t := range o.topics {
		text, _ := json.Marshal(t)
		if size+len(text)+1 > maxPayload {
			done()
		}
		if size+len(text)+1 > maxPayload { // no NOTIFY has room for it: the rows tell
			continue
		}
		p.Topics, size = append(p.Topics, t), size+len(text)+1
	}
	done()
	clear(o.topics)
	return texts
}

// listener is what a server hears of the others.
type listener struct {
	*Store
	channel string // letters, digits and _
	config  *pgx.ConnConfig
	last    int64     // position of the last row that was read
	read    time.Time // when
	forgot  bool      // what was in memory, while the database is away
	echo    chan struct{}
}

// listen begins to hear, and to tell. When it returns, no notice goes by unheard.
func (s *Store) listen(ctx, background context.Context, config *pgx.ConnConfig) error {
	l := &listener{Store: s, config: config, echo: make(chan struct{}, 1)}
	s.notices.wake = make(chan struct{}, 1)
	if err := s.pool.QueryRow(ctx, `select value from narwharf_meta where key = 'channel'`).Scan(&l.channel); err != nil {
		return err
	}
	if err := l.now(ctx); err != nil {
		return err
	}
	conn, err := l.connect(ctx)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s.ended.Go(func() { l.hear(background, conn) })
	s.ended.Go(func() { l.readRows(background) })
	s.ended.Go(func() { l.tell(background) })
	return nil
}

// now begins at the rows that come from now on.
func (l *listener) now(ctx context.Context) error {
	l.read = time.Now()
	var at time.Time
	err := l.own.QueryRow(ctx, `select (`+oldestWork+`) - 1, clock_timestamp()`).Scan(&l.last, &at)
	if err == nil {
		l.told(l.read, at)
	}
	return err
}

// told is that the clock of the database was at a time between two of ours. A difference that a round trip
// may have made is none.
func (l *listener) told(asked, at time.Time) {
	trip := time.Since(asked)
	ahead := at.Sub(asked.Add(trip / 2))
	if known := time.Duration(l.ahead.Load()); (ahead - known).Abs() > trip/2 {
		l.ahead.Store(int64(ahead))
	}
}

func (l *listener) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	config := l.config.Copy()
	if l.password != nil {
		if err := l.password(ctx, config); err != nil {
			return nil, err
		}
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, `listen `+l.channel); err != nil {
		_ = conn.Close(ctx)
		return nil, err
	}
	return conn, nil
}

// hear passes on what comes by NOTIFY. A connection that is lost is made anew, and all
// topics are told: nobody knows what was missed.
func (l *listener) hear(ctx context.Context, conn *pgx.Conn) {
	for pause := 100 * time.Millisecond; ; {
		if conn != nil {
			err := l.wait(ctx, conn)
			closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			_ = conn.Close(closing)
			cancel()
			if ctx.Err() != nil {
				return
			}
			l.log.Warn("the connection that listens is lost", "database", l.name, "error", err)
		}
		if !sleep(ctx, pause) {
			return
		}
		var err error
		if conn, err = l.connect(ctx); err != nil {
			pause = min(2*pause, 5*time.Second)
			continue
		}
		pause = 100 * time.Millisecond
		l.watchers.Tell([]string{state.All})
	}
}

func (l *listener) wait(ctx context.Context, conn *pgx.Conn) error {
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		var p payload
		switch {
		case json.Unmarshal([]byte(n.Payload), &p) != nil:
		case p.Sender == l.id:
			select {
			case l.echo <- struct{}{}:
			default:
			}
		default:
			l.watchers.Tell(p.Topics)
		}
	}
}

// tell sends NOTIFYs. When the store is closed what is left goes out first.
func (l *listener) tell(ctx context.Context) {
	send := context.WithoutCancel(ctx)
	deaf := false
	for more := true; more; {
		select {
		case <-l.notices.wake:
		case <-ctx.Done():
			more = false
		}
		for _, text := range l.notices.take(l.id) {
			within, cancel := context.WithTimeout(send, 5*time.Second)
			if _, err := l.own.Exec(within, `select pg_notify($1, $2)`, l.channel, text); err != nil {
				l.log.Warn("other servers hear of changes a second later", "database", l.name, "error", err)
			} else if more && !deaf {
				deaf = l.deaf(ctx)
			}
			cancel()
		}
		sleep(ctx, gather)
	}
}

// deaf tells, and logs, that the connection that listens does not hear: it goes
// through a pooler.
func (l *listener) deaf(ctx context.Context) bool {
	select {
	case <-l.echo:
	case <-ctx.Done():
	case <-time.After(2 * time.Second):
		l.log.Error("nothing is heard where the database is listened to, so that changes of other servers come a second late: state_listen has to go to the database itself, and not through a pooler", "database", l.name)
		return true
	}
	return false
}

// readRows reads the rows of notices once a second, and deletes old ones.
func (l *listener) readRows(ctx context.Context) {
	trim, pause := time.Now(), look
	for sleep(ctx, pause+rand.N(look/10)) {
		topics, err := l.rows(ctx)
		if ctx.Err() != nil {
			return
		}
		l.isAway(err)
		if pause = look; err != nil {
			pause = look / 5
			continue
		}
		l.watchers.Tell(topics)
		if time.Since(trim) > keep/4 {
			trim = time.Now()
			_, _ = l.own.Exec(ctx, `delete from narwharf_notice where at < clock_timestamp() - $1 * interval '1 second'`, keep.Seconds())
		}
	}
}

// isAway notes whether the database answers. While it does not, transactions fail at once and need not wait
// for a connection each; and what is in memory counts no longer than for stale.
func (l *listener) isAway(err error) {
	since := l.Away()
	switch {
	case err == nil && since.IsZero():
	case err == nil:
		l.away.Store(0)
		l.forgot = false
		l.log.Info("the database answers again", "database", l.name, "was_away", time.Since(since).Round(time.Millisecond))
	case !errors.Is(l.problem(err), state.ErrUnavailable):
	case since.IsZero():
		l.away.Store(time.Now().UnixNano())
		l.log.Error("the database does not answer: what is in memory is served, nothing is written", "database", l.name, "error", err)
	case l.stale > 0 && !l.forgot && time.Since(since) > l.stale:
		l.forgot = true
		l.log.Error("the database is away for too long: what is in memory does not count any more", "database", l.name, "stale", l.stale)
		l.watchers.Tell([]string{state.All})
	}
}

// rows are the topics of others since the last reading.
func (l *listener) rows(ctx context.Context) (topics []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if time.Since(l.read) > behind {
		if err := l.now(ctx); err != nil {
			l.read = time.Time{}
			return nil, err
		}
		return []string{state.All}, nil
	}
	began := time.Now()
	var at time.Time
	if err := l.own.QueryRow(ctx, `select clock_timestamp()`).Scan(&at); err != nil {
		return nil, err
	}
	l.told(began, at)
	rows, err := l.own.Query(ctx, `select position, sender, topics from narwharf_notice where position > $1 and position < `+oldestWork+` order by position`, l.last)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var sender string
		var list []string
		if err := rows.Scan(&l.last, &sender, &list); err != nil {
			return nil, err
		}
		if sender != l.id {
			topics = append(topics, list...)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	l.read = began
	return slices.Compact(topics), nil
}

// sleep waits, and tells whether the context is still good.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
