"""What several tests share: waiting, free ports, real servers."""
