// Web: asks orders and the catalogue, and knows nothing of the mesh around it.
const http = require("http");

const ask = (url, method) =>
  new Promise((resolve) => {
    const request = http.request(url, { method, timeout: 5000 }, (answer) => {
      let text = "";
      answer.on("data", (part) => (text += part));
      answer.on("end", () => resolve(`${answer.statusCode} ${text.trim()}`));
    });
    request.on("error", (error) => resolve(`${error.code}`));
    request.end();
  });

http
  .createServer(async (request, response) => {
    const orders = await ask(process.env.ORDERS_URL + "/orders", request.method);
    const catalog = await ask(process.env.CATALOG_URL + "/items.json", "GET");
    response.end(`orders: ${orders}\ncatalog: ${catalog}\n`);
  })
  .listen(8000, "0.0.0.0");
