import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/** Compiles itself (java Peer.java), runs threads and a child process, collects garbage, and talks to itself over HTTP. */
public class Peer {
    public static void main(String[] args) throws Exception {
        long sum = 0;
        try (var pool = Executors.newFixedThreadPool(8)) {
            var parts = new java.util.ArrayList<Future<Integer>>();
            for (int i = 0; i < 64; i++) {
                int n = i;
                parts.add(pool.submit(() -> new String(new char[1 << 20]).length() / (1 << 20) + n));
            }
            for (var p : parts) sum += p.get();
        }
        System.gc();
        if (new ProcessBuilder("true").start().waitFor() != 0) throw new Exception("child");
        var server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
        server.createContext("/", e -> { e.sendResponseHeaders(200, 2); e.getResponseBody().write("ok".getBytes()); e.close(); });
        server.start();
        var uri = URI.create("http://127.0.0.1:" + server.getAddress().getPort());
        var answer = HttpClient.newHttpClient().send(HttpRequest.newBuilder(uri).build(), HttpResponse.BodyHandlers.ofString());
        server.stop(0);
        System.out.println("java works: " + sum + " " + answer.body());
        System.exit(0);
    }
}
