package hooks

import "time"

func channelTopic(name string) string { return "channel/" + name }
func hostTopic(name string) string    { return "host/" + name }

// hostsTopic is for whoever looks at the hosts of a channel, or at all ("").
func hostsTopic(channel string) string { return "hosts/" + channel }

// noted wakes whoever looks at events, at hosts of a channel, or at more.
func (s *Server) noted(channel string, more ...string) {
	s.polls.Notify(append(more, hostsTopic(channel), hostsTopic(""), eventsTopic)...)
}

// wakeAt wakes at a time whoever has joined a topic by then.
func (s *Server) wakeAt(t time.Time, topic string) {
	s.alarms.first(t, topic, func() { s.polls.Notify(topic) })
}

// hostsChanged wakes whoever looks at hosts of a channel.
func (s *Server) hostsChanged(channel string) {
	s.polls.Notify(hostsTopic(channel), hostsTopic(""))
}

const eventsTopic = "events"
