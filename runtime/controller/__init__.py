"""What the line's controller (a PLC) talks to: an OPC UA server, a Modbus TCP server, and what both show."""
