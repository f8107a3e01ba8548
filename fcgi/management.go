package fcgi

import (
	"errors"
	"fmt"
)

// answer answers a whole management record. Records of requests that have ended are skipped.
func (c *Conn) answer(h Header, content []byte) error {
	if h.RequestID != managementID {
		return nil
	}
	var reply []byte
	switch h.Type {
	case TypeGetValues:
		values, err := answerGetValues(content)
		if err != nil {
			return c.refuse(err)
		}
		reply = AppendRecord(nil, TypeGetValuesResult, managementID, values)
	default:
		reply = appendUnknownType(nil, h.Type)
	}
	if err := c.write(reply); err != nil {
		return fmt.Errorf("answer a record of type %d: %w", h.Type, err)
	}
	return nil
}

// answerGetValues answers a get values record as PHP-FPM does (section 4.1): requests on one conn are served one at a
// time. It gives no limit of conns or requests.
func answerGetValues(content []byte) ([]byte, error) {
	var values []byte
	for len(content) > 0 {
		name, _, n, err := pair(content)
		if err != nil {
			return nil, fmt.Errorf("get values: %w", err)
		}
		content = content[n:]
		if string(name) == "FCGI_MPXS_CONNS" {
			values = AppendPair(values, name, "0")
		}
	}
	return values, nil
}

// keepsEarly is early.keeps, and ends the request that does not stay.
func (c *Conn) keepsEarly(h Header, aheadWhole bool) (keep bool, err error) {
	keep, end := c.early.keeps(h, aheadWhole)
	if end != nil {
		err = c.write(end)
	}
	return keep, err
}

// refuse ends the current request, if any, with an answer that has the reason err. It returns err.
func (c *Conn) refuse(err error) error {
	c.lingers = true
	if c.req.begun {
		_ = c.nc.SetWriteDeadline(deadline(lingerTimeout))
		_ = c.write(refusal(c.req.ID, err))
	}
	return err
}

// refusal returns the answer to a request that cannot be served: the reason on stderr, and an end request with the
// protocol status of the specification.
func refusal(id uint16, reason error) []byte {
	status := StatusRequestComplete
	switch {
	case errors.Is(reason, ErrUnknownRole):
		status = StatusUnknownRole
	case errors.Is(reason, ErrParamsTooLarge):
		status = StatusOverloaded
	}
	b := AppendStream(nil, TypeStderr, id, []byte("fpm-gate: "+reason.Error()+"\n"))
	return AppendEndRequest(b, id, 1, status)
}
