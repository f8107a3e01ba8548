package fcgi

import "fmt"

// answer answers a whole record that is not part of the request being served: a management record, or a
// second request. Records of other requests that were refused are passed over in silence.
func (c *Conn) answer(h Header, content []byte, busy *Request) error {
	var reply []byte
	switch {
	case h.RequestID == managementID && h.Type == TypeGetValues:
		values, err := answerGetValues(content)
		if err != nil {
			return c.refuse(err)
		}
		reply = AppendRecord(nil, TypeGetValuesResult, managementID, values)
	case h.RequestID == managementID:
		reply = appendUnknownType(nil, h.Type)
	case h.Type == TypeBeginRequest && busy.begun:
		reply = AppendEndRequest(nil, h.RequestID, 0, StatusCantMpxConn)
	default:
		return nil
	}
	if err := c.write(reply); err != nil {
		return fmt.Errorf("answer a record of type %d: %w", h.Type, err)
	}
	return nil
}

// answerGetValues says what the gate is able to, of what is asked for (section 4.1): it sets no limit on
// conns and requests of its own that a web server would have to know, and multiplexes nothing.
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

// refuse tells the web server why its request, if it has begun one, ends here, and returns err.
func (c *Conn) refuse(err error) error {
	c.spoilt = true
	if c.req.begun {
		_ = c.nc.SetWriteDeadline(deadline(lingerTimeout))
		_ = c.write(refusal(c.req.ID, err))
	}
	return err
}
