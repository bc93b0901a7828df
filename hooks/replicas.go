package hooks

import (
	"net/http"

	shown "narwharf/hooks/api/replica"
	"narwharf/hooks/call"
)

// getReplicas is GET /replicas.
func (s *Server) getReplicas(c *call.Call) error {
	list, err := []shown.Replica{}, error(nil)
	if s.replicas != nil {
		list, err = s.replicas.List()
	}
	return c.JSON(http.StatusOK, map[string]any{"replicas": list}, err)
}
