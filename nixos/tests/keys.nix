# Keys that are good for nothing but these tests.
{
  cache = {
    secret = "cache-1:K/bwO8hoGlVhnQ+2Xlo9nCIvM3xocCeTN6FaZKb1oI9t5hL5CWZHHpXMvqXuVlnhiY7FvI12b8ER1NtEK/5zJA==";
    public = "cache-1:beYS+QlmRx6VzL6l7lZZ4YmOxbyNdm/BEdTbRCv+cyQ=";
  };
  alice = {
    secret = "alice-1:sCKr9jMePMFXbhMgkJxvdQk5/Qu8epIKwzzh8ZYeu6xxF9WMz3Xm/CKFKpzV1X+QcV7uBBzLm93y1WV6jrisCA==";
    public = "alice-1:cRfVjM915vwihSqc1dV/kHFe7gQcy5vd8tVleo64rAg=";
  };
}
